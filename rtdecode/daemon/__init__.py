"""The daemon's processes: *acquire*, *decode*, and their supervisor."""
