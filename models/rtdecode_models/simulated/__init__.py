"""Simulated experiments with a known answer: what an ideal decoder would score stands beside what ours do."""
