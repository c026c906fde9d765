"""The fixture `session`, and the way to `daemon_kit` for the tests beside it."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from daemon_kit import Session


def _session() -> Iterator[Session]:
    """A folder with a short path (sockets need one), and processes that do not outlive the test."""
    folder = Path(tempfile.mkdtemp(prefix="rtd"))
    one = Session(folder)
    try:
        yield one
    finally:
        one.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def session() -> Iterator[Session]:
    """One machine's session."""
    yield from _session()


@pytest.fixture
def other() -> Iterator[Session]:
    """A second machine's."""
    yield from _session()
