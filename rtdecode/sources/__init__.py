"""Where samples and markers come from: LSL streams, recordings, the simulated subject. One protocol, one test suite."""
