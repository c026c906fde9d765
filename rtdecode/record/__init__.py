"""Sessions on disk: written while they run, made whole after a crash, converted."""
