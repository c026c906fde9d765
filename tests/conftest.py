"""What several test files need: the shared recordings, LSL settings of a test's own; and how the whole suite runs."""

import faulthandler
import signal
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

#: Files that wait more than they compute, for processes and for real time: begun first where several run at once, so
#: that none of them is left alone at the end.
LONG = (
    "test_end_to_end.py",
    "test_daemon_processes.py",
    "test_daemon_budget.py",
    "test_daemon_session.py",
    "test_install.py",
    "test_chaos.py",
    "test_certify_run.py",
    "test_daemon_record.py",
    "test_demo.py",
    "test_source_conformance.py",
    "test_source_fieldtrip.py",
    "test_source_zmq.py",
    "test_source_lsl.py",
    "test_daemon_trouble.py",
    "test_daemon_control.py",
    "test_daemon_refused.py",
)


def pytest_configure() -> None:
    # A shell that runs the suite in the background, or nohup, has it ignore these, and its children would as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))


def pytest_unconfigure() -> None:
    # A thread that never ends would keep the interpreter, and the run, for ever: say where it is, and fail.
    faulthandler.dump_traceback_later(120, exit=True)


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings, beside the project; tests that use it skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("the shared recordings (../shared/data) are not on this machine")
    return SHARED


@pytest.fixture
def lsl_config(tmp_path: Path) -> Path:
    """A liblsl configuration file for child processes: loopback only, in a session of this test's own."""
    path = tmp_path / "lsl_api.cfg"
    path.write_text(
        "[ports]\nIPv6 = disable\n"
        "[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n"
        f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = test-{uuid.uuid4().hex}\n"
        "[log]\nlevel = -1\n"
    )
    return path


@pytest.fixture(scope="session")
def lsl_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for this process as well: liblsl reads its configuration once, so all tests here share a session.

    The file is for the child processes that serve streams to this one (``LSLAPICFG``).
    """
    from rtdecode.sources.lsl import configure_lsl

    content = (
        "[ports]\nIPv6 = disable\n"
        "[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n"
        f"[lab]\nKnownPeers = {{127.0.0.1}}\nSessionID = test-{uuid.uuid4().hex}\n"
        "[log]\nlevel = -2\n"
    )
    path = tmp_path_factory.mktemp("lsl") / "lsl_api.cfg"
    path.write_text(content)
    configure_lsl(content)
    return path
