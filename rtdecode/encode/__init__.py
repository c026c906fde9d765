"""Bundles, and the engines that run their encoders."""
