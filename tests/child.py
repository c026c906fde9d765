"""A process under the hand of a test: it does as it is told, line by line, and ends when its standard input does."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self


class Child:
    """``python script arguments...``: a line of JSON in, a line out."""

    process: "subprocess.Popen[str]"

    def start(self, script: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Start it (again); the first line that it says."""
        self.process = subprocess.Popen(
            [sys.executable, script, *arguments], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, **command: Any) -> None:
        """Returns once it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        assert self._line() == "done"

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self._reap()

    def close(self) -> None:
        """Let it end by itself, where it has not."""
        if self.process.poll() is None:
            self.resume()
            assert self.process.stdin is not None
            self.process.stdin.close()
        self._reap()

    def _reap(self) -> None:
        self.process.wait(timeout=20)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            if not pipe.closed:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
