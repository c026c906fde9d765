"""A Python environment for each peer, made once from its exact versions and kept in a cache folder."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parent / "peers"


def cache() -> Path:
    """Where environments and workloads are kept: ``$RTDECODE_BENCHMARKS``, or a folder in the user's cache."""
    given = os.environ.get("RTDECODE_BENCHMARKS")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rtdecode" / "benchmarks"


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, which is made where it is not there yet.

    Parameters
    ----------
    peer : str
        ``requirements-PEER.txt`` names its packages.

    Raises
    ------
    SystemExit
        The packages cannot be installed; pip's last words are in the text.
    """
    requirements = PEERS / f"requirements-{peer}.txt"
    known = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    place = cache() / f"{peer}-{known}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        print(f"making the environment {place} (once)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{requirements.name}: pip cannot install it: {done.stderr[-2000:]}")
        (place / "complete").touch()
    return python


def liblsl() -> Path:
    """The library inside the pylsl wheel of the loop by hand, for a pylsl whose wheel has none."""
    root = python_of("pylsl").parent.parent
    return next(root.glob("lib/python*/site-packages/pylsl/lib/liblsl.so"))


def versions(peer: str) -> dict[str, str]:
    """The packages that its requirements name, and their versions."""
    lines = (PEERS / f"requirements-{peer}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)
