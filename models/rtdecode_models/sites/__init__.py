"""Which electrodes respond to a stimulus, and what a bundle that decodes from those asks of a stream."""
