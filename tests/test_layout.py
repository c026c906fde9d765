"""The direction of imports, and what the daemon must never load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Rooms from left to right: each imports only from those before it (and from itself).
ROOMS = (
    "errors", "signal", "hostclock", "clock", "sources", "stream", "encode", "heads", "result", "decoder", "budget",
    "score", "offline", "wire", "record", "config", "daemon", "demo", "chaos", "certify", "cli",
)  # fmt: skip

#: The rooms that do no I/O and read no clock, and the modules that would let them.
PURE = ("clock", "stream", "heads", "result", "decoder", "budget")
IMPURE = {
    *("socket", "threading", "time", "datetime", "zmq", "pylsl", "asyncio", "subprocess", "multiprocessing"),
    *("pathlib", "io", "os", "rtdecode.hostclock"),
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere in it, lazily or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def room(path: Path) -> str:
    return path.relative_to(ROOT / "rtdecode").parts[0].removesuffix(".py")


#: The one file that draws; it is imported where a report was asked for.
PICTURES = ROOT / "rtdecode" / "certify" / "pictures.py"

FILES = sorted(p for p in (ROOT / "rtdecode").rglob("*.py") if room(p) not in ("__init__", "__main__"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_from_its_left(path: Path) -> None:
    here = ROOMS.index(room(path))
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top not in ("rtdecode_models", "rtdecode_export", "torch"), f"{path} imports {name}"
        assert top != "matplotlib" or path == PICTURES, f"{path} imports {name}"
        if top == "rtdecode" and rest:
            assert ROOMS.index(rest.split(".")[0]) <= here, f"{path} imports {name}, from its right"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in PURE], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_does_no_io_and_reads_no_clock(path: Path) -> None:
    assert not imports(path) & IMPURE
    calls = {
        n.func.id
        for n in ast.walk(ast.parse(path.read_text()))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not calls & {"open", "print", "input"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "models").rglob("*.py")) + sorted((ROOT / "export").rglob("*.py")), ids=str
)
def test_models_and_export_import_the_daemon_and_not_its_verbs(path: Path) -> None:
    names = {name for name in imports(path) if name.startswith("rtdecode.")}
    assert not {name for name in names if name.startswith(("rtdecode.cli", "rtdecode.daemon"))}


#: Rooms of the models, from left to right, as those of the daemon.
MODEL_ROOMS = ("provenance", "data", "simulated", "systems", "sites", "training", "zoo", "demo", "cli")


@pytest.mark.parametrize("path", sorted((ROOT / "models" / "rtdecode_models").rglob("*.py")), ids=str)
def test_a_room_of_the_models_imports_only_from_its_left(path: Path) -> None:
    own = path.relative_to(ROOT / "models" / "rtdecode_models").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "rtdecode_models" and rest:
            assert MODEL_ROOMS.index(rest.split(".")[0]) <= MODEL_ROOMS.index(own), f"{path} imports {name}"


def test_a_running_daemon_has_no_torch_no_mne_no_matplotlib_no_qt() -> None:
    modules = ["acquire", "decode", "supervisor"]
    code = (
        "import sys\n"
        + "".join(f"import rtdecode.daemon.{name}\n" for name in modules)
        + "import rtdecode.cli.run, rtdecode.cli.listen, rtdecode.encode.engines, rtdecode.sources.lsl\n"
        + "bad = {m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'mne', 'matplotlib', 'PyQt5', 'PyQt6', 'PySide6', 'sklearn', 'pandas', 'pyxdf'}\n"
        "sys.exit(f'loaded: {sorted(bad)}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_inlets_live_in_acquire_alone() -> None:
    """*decode* and the supervisor have liblsl's clock, and no module that could open a stream."""
    code = (
        "import sys\n"
        "import rtdecode.cli.run, rtdecode.cli.decode, rtdecode.daemon.supervisor, rtdecode.daemon.decode\n"
        "bad = [m for m in sys.modules if m.startswith('rtdecode.sources.') and 'lsl' in m]\n"
        "sys.exit(f'loaded: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    daemon = [path for path in FILES if room(path) == "daemon"]
    assert {path.name for path in daemon if any("lsl" in name.lower() for name in imports(path))} <= {"sources.py"}


def test_the_public_names_are_there_and_no_others() -> None:
    import rtdecode

    assert rtdecode.__all__ == sorted(rtdecode._HOME)
    for name in rtdecode.__all__:
        assert getattr(rtdecode, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rtdecode.nothing
