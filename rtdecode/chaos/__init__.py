"""Faults on purpose: a live daemon, a script of troubles, and the count of windows that came out wrong."""

from pathlib import Path

#: The bundle that tells what it saw (see `rtdecode.chaos.truth`).
BUNDLE = Path(__file__).with_name("witness.zip")
