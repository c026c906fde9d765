"""What ``rtdecode demo`` brings along: the bundle that was trained on the simulated subject, and its bookkeeping."""

from pathlib import Path

#: The committed bundle; ``python -m rtdecode_models.demo`` makes it anew.
BUNDLE = Path(__file__).with_name("bundle.zip")
