"""Samples become windows: rings, conditioning steps, what is due."""
