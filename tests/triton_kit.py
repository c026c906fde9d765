"""A real Triton server for tests, out of the nvidia-pytriton wheel, without Docker or a GPU.

The wheel carries Triton with its Python backend. Only its files are used: nothing of it is imported, so that it can be
installed without its dependencies (``pip install --no-deps nvidia-pytriton``).
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil

from rtdecode.encode.kserve import Connection, TritonServer
from rtdecode.encode.protobuf import bytes_field
from rtdecode.encode.shared_region import FOLDER
from rtdecode.encode.triton_link import TritonLink
from rtdecode.encode.triton_repository import ModelSettings, write_model

_found = importlib.util.find_spec("pytriton")
ROOT = None if _found is None or _found.origin is None else Path(_found.origin).parent / "tritonserver"
WHY_NOT = "not run: needs a Triton server (pip install --no-deps nvidia-pytriton; make test-triton does it)"


def backends(folder: Path) -> Path:
    """A folder of backends as the server wants it: the Python backend, with the stub for this Python beside it."""
    assert ROOT is not None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(ROOT / "backends" / "python", folder / "python", ignore=shutil.ignore_patterns("__pycache__"))
    stub = folder / "python" / "triton_python_backend_stub"
    shutil.copyfile(ROOT / "python_backend_stubs" / version / stub.name, stub)
    stub.chmod(0o700)
    return folder


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(seconds: float) -> Iterator[int]:
    """Turns to look for something that takes a while: 0, 1, 2...; fails where it has not come."""
    deadline, n = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        yield n
        n += 1
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


class Server:
    """A server process; it may be killed and started again on the same port."""

    def __init__(self, folder: Path, repository: Path, *options: str) -> None:
        self.folder = folder
        self.repository = repository
        self.options = options
        self.port = free_port()
        self.url = f"127.0.0.1:{self.port}"
        self._memory = f"rtdtest-{os.getpid()}-{self.port}-"
        self._process: subprocess.Popen[bytes] | None = None
        self._backends = backends(folder / "backends")

    def start(self, server: TritonServer | None = None) -> None:
        """Start, and wait until it is ready (spoken to as `server` says)."""
        assert ROOT is not None
        libraries = [ROOT.parent.parent / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR"))]
        environ = os.environ | {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            # The backend takes the packages of the Python that it finds first.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        command = [
            str(ROOT / "bin" / "tritonserver"), "--model-repository", str(self.repository),
            "--backend-directory", str(self._backends), "--allow-http=false", "--allow-metrics=false",
            "--grpc-address=127.0.0.1", f"--grpc-port={self.port}", "--exit-timeout-secs=1",
            f"--backend-config=python,shm-region-prefix-name={self._memory}", *self.options,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environ, start_new_session=True, cwd=self.folder
            )
        link = Connection(server or TritonServer(self.url, "any"))
        try:
            for _ in range(60):
                with contextlib.suppress(grpc.RpcError):
                    link.server_version(timeout=1.0)
                    return
                assert self._process.poll() is None, self.said()
            raise AssertionError(self.said())
        finally:
            link.close()

    def load(self, onnx: bytes) -> TritonLink:
        """Have the server load an encoder (with ``--model-control-mode=explicit``), and open a link to it."""
        name = f"m{len(list(self.repository.iterdir()))}"
        write_model(onnx, self.repository, name, ModelSettings("python"))
        connection = Connection(TritonServer(self.url, name))
        try:
            connection._ask("RepositoryModelLoad", bytes_field(2, name), 60.0)
            outputs = [one.name for one in connection.model(name, "", 5.0).outputs]
        finally:
            connection.close()
        return TritonLink(TritonServer(self.url, name), outputs)

    def said(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-8000:]

    def kill(self) -> None:
        """As a crash would end it; what its backends started ends with it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._end_group()

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        for _ in until(10):
            if psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED:
                return

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
        self._end_group()
        for left in FOLDER.glob(f"{self._memory}*"):  # shared memory of a backend that could not clean up
            left.unlink(missing_ok=True)

    def _end_group(self) -> None:
        """Stubs of the Python backend outlive a server that was killed."""
        if self._process is None:
            return
        deadline = time.monotonic() + 10
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self._process.pid, signal.SIGKILL)
                time.sleep(0.01)
