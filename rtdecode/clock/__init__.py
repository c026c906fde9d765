"""Host time for samples and markers: drift, jitter, holes. Pure: no I/O, no clock of its own."""
