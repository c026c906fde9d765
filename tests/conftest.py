"""What several test files need: the shared recordings, and LSL settings of a test's own."""

import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

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
