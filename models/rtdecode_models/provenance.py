"""What code made a model."""

import shutil
import subprocess
from pathlib import Path


def code_commit() -> str | None:
    """The commit of the working tree that this code runs from, ``-dirty`` where it was changed; None without one."""
    git = shutil.which("git")
    if git is None:
        return None
    here = Path(__file__).parent
    described = subprocess.run([git, "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if described.returncode != 0:
        return None
    changed = subprocess.run(
        [git, "-C", str(here), "status", "--porcelain", "--untracked-files=no"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")
