"""What the systems scored on the simulated experiments: measured by a command, kept here, shown by the zoo."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import msgspec

#: The file that ``benchmarks/known_answer.py`` writes.
FILE = "results.json"


def read_results() -> Mapping[str, Mapping[str, Any]]:
    """Name of an entry -> what was measured of it; empty where nothing was."""
    path = files(__package__) / FILE
    if not path.is_file():
        return {}
    found: Mapping[str, Mapping[str, Any]] = msgspec.json.decode(path.read_bytes())["entries"]
    return found
