"""What the command line prints reaches terminals that know only ASCII, and a full disk is no bug."""

import os
import subprocess
import sys
from pathlib import Path

import bundles
import msgspec
import pytest

from rtdecode.encode.bundle import write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a name that ASCII cannot write."""
    manifest, files = bundles.parts()
    path = tmp_path / "bundle.zip"
    write_bundle(path, msgspec.structs.replace(manifest, name="gehört → gesehen"), files)
    return path


def inspect(bundle: Path, stdout: Path, encoding: str = "utf-8") -> tuple[int, str]:
    """Exit code and standard error of a verb that prints text."""
    command = [sys.executable, "-m", "rtdecode", "bundle", "inspect", str(bundle)]
    env = os.environ | {"PYTHONIOENCODING": encoding}
    with stdout.open("wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, timeout=60, env=env, check=False)
    return done.returncode, done.stderr.decode()


def test_characters_that_a_terminal_does_not_know_are_escaped(tmp_path: Path, bundle: Path) -> None:
    code, text = inspect(bundle, tmp_path / "printed", encoding="ascii")
    assert (code, text) == (0, "")
    assert b"geh\\xf6rt \\u2192 gesehen" in (tmp_path / "printed").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_in_a_line(bundle: Path) -> None:
    code, text = inspect(bundle, Path("/dev/full"))
    assert code == 2
    assert text.startswith("rtdecode: ConfigError: ")
    assert "has no room" in text
    assert len(text.splitlines()) == 1
