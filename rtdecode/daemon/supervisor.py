"""``rtdecode run``: *acquire* and one *decode* for each pipeline, as processes of their own.

A decoder that crashes is started again; one that says what is wrong (a contract that is not met, a damaged bundle) is
not, since it would say so again. The end of *acquire* is the end of the session, once the decoders have decoded what it
gave. Each child's standard input is held open here: it closes when this process dies, however it dies, and the child
ends.
"""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

import structlog

from rtdecode import hostclock
from rtdecode.config import Config
from rtdecode.daemon.endpoints import endpoints, prepare
from rtdecode.daemon.process import GROUP_SIGNALS, ONE_THREAD, SUPERVISED, announce, notify_systemd
from rtdecode.errors import ProcessError
from rtdecode.wire.endpoint import refuse_live_ipc

#: A decoder that crashes more often than this within the window below is given up.
RESTARTS = 5
RESTART_WINDOW_S = 60.0
FIRST_BACKOFF_S = 0.2

#: Beyond what the processes allow themselves, before they are killed.
PATIENCE_S = 15.0

#: Exit codes by which a process says what is wrong (see `rtdecode.errors`); anything else is a crash.
SAID = range(1, 8)


@dataclass(slots=True, eq=False)
class Child:
    """One process.

    Parameters
    ----------
    name : str
        ``acquire``, or the pipeline.
    arguments : list of str
        After ``rtdecode``.
    """

    name: str
    arguments: list[str]
    process: "subprocess.Popen[str] | None" = None
    ready: str = ""
    crashes: list[float] = field(default_factory=list)
    given_up: bool = False
    terminated: bool = False

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.process is not None


@dataclass(frozen=True, slots=True)
class _Line:
    child: Child
    text: str


@dataclass(frozen=True, slots=True)
class _Exit:
    child: Child
    code: int


@dataclass(frozen=True, slots=True)
class _Start:
    child: Child


@dataclass(frozen=True, slots=True)
class _Signal:
    name: str


_Happening = _Line | _Exit | _Start | _Signal


class Supervisor:
    """Runs one session.

    Parameters
    ----------
    config : Config
    hold : int
        How many, besides the pipelines, a recording or a simulation waits for before it starts.
    """

    def __init__(self, config: Config, *, hold: int = 0) -> None:
        self._config = config
        self._found = endpoints(config)
        self._logger = structlog.get_logger()
        # SimpleQueue, since a signal handler puts into it: its put may interrupt itself.
        self._happenings: queue.SimpleQueue[_Happening] = queue.SimpleQueue()
        path = str(config.path)
        self._acquire = Child("acquire", ["acquire", path, "--hold", str(len(config.pipelines) + hold)])
        self._decoders = [Child(name, ["decode", path, name]) for name in config.pipelines]
        self._code = 0
        self._announced = False
        self._stopping = ""
        self._deadline = float("inf")

    def run(self) -> int:
        """Run until the source has ended or a signal comes; the exit code of the first process that failed, or 0.

        Raises
        ------
        ProcessError, PortInUseError
            Another run of this configuration is alive, or the runtime folder is not safe.
        """
        for endpoint in (*self._found.all, *(pipeline.publish for pipeline in self._config.pipelines.values())):
            refuse_live_ipc(endpoint)
        prepare(self._found, private=self._config.bus.dir is None)
        for child in self._decoders:  # what an earlier session published says nothing about this one
            (self._found.folder / f"{child.name}.progress").unlink(missing_ok=True)
        with self._signals():
            try:
                for child in (self._acquire, *self._decoders):
                    self._start(child)
                self._loop()
            finally:
                self._kill()
                self._clean()
        return self._code

    # --- what happens -------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while self._acquire.running or any(child.running or self._waits(child) for child in self._decoders):
            try:
                happening = self._happenings.get(timeout=max(0.0, min(1.0, self._deadline - hostclock.now())))
            except queue.Empty:
                if hostclock.now() >= self._deadline:
                    left = [child.name for child in (self._acquire, *self._decoders) if child.running]
                    self._logger.error("killing what does not end", left=", ".join(left), patience_s=PATIENCE_S)
                    self._fail(ProcessError.exit_code)
                    return
                continue
            match happening:
                case _Line(child, text):
                    self._line(child, text)
                case _Start(child):
                    if not self._stopping:
                        self._start(child)
                    else:
                        child.given_up = True
                case _Exit(child, code):
                    child.process = None
                    if child.terminated and code == -signal.SIGTERM:
                        code = 0  # it was on its way out, or had not begun
                    if child is self._acquire:
                        self._acquire_ended(code)
                    else:
                        self._decoder_ended(child, code)
                case _Signal(name):
                    self._stop(name)

    def _line(self, child: Child, text: str) -> None:
        if text.startswith("READY "):
            child.ready = text.removeprefix("READY ")
            self._logger.info("ready", about=child.name)
        if not self._announced and all(one.ready for one in (self._acquire, *self._decoders)):
            self._announced = True
            where = " ".join(f"{name}={self._publish_of(name)}" for name in self._config.pipelines)
            announce(f"READY run control={self._found.acquire} {where}".rstrip())
            notify_systemd("READY=1")

    def _publish_of(self, name: str) -> str:
        """Where a pipeline really publishes; port 0 became another."""
        child = next(child for child in self._decoders if child.name == name)
        pairs = dict(pair.partition("=")[::2] for pair in child.ready.split())
        return pairs["publish"]

    def _acquire_ended(self, code: int) -> None:
        code = _exit_code(code)
        if code:
            self._fail(code)
            self._logger.error("acquire failed", code=code)
        if not code and not self._stopping and not self._config.session.exit_at_end:
            return  # the decoders wait for a signal, as they were told
        self._stopping = self._stopping or "the end of acquire"
        # With an end that was announced they are leaving already; after a crash nobody told them.
        for child in self._decoders:
            self._terminate(child)
        self._deadline = hostclock.now() + PATIENCE_S

    def _decoder_ended(self, child: Child, code: int) -> None:
        if not code:
            self._logger.info("ended", about=child.name)
            if not self._acquire.running or self._stopping:
                return
        elif code in SAID or self._stopping:
            self._fail(_exit_code(code))
            self._give_up(child, f"it failed with code {_exit_code(code)}")
        else:
            self._crashed(child, code)
        if not any(one.running or self._waits(one) for one in self._decoders):
            self._stop("the end of the last pipeline")

    def _crashed(self, child: Child, code: int) -> None:
        now = hostclock.now()
        child.crashes = [at for at in child.crashes if now - at < RESTART_WINDOW_S] + [now]
        if len(child.crashes) > RESTARTS:
            self._fail(_exit_code(code))
            self._give_up(child, f"it crashed {len(child.crashes)} times within {RESTART_WINDOW_S:g} s")
            return
        wait = FIRST_BACKOFF_S * 2 ** (len(child.crashes) - 1)
        self._logger.warning("crashed; started again", about=child.name, how=_how(code), after_s=wait)
        timer = threading.Timer(wait, lambda: self._happenings.put(_Start(child)))
        timer.daemon = True
        timer.start()

    def _give_up(self, child: Child, why: str) -> None:
        child.given_up = True
        self._logger.error("given up", about=child.name, why=why)
        if not self._announced:  # a session that cannot begin as it was asked for does not begin at all
            self._stop(f"pipeline {child.name} cannot run")

    def _waits(self, child: Child) -> bool:
        """Whether a crashed decoder is about to be started again."""
        return not child.running and bool(child.crashes) and not child.given_up and not self._stopping

    def _fail(self, code: int) -> None:
        self._code = self._code or code

    # --- beginning and end --------------------------------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        child.ready, child.terminated = "", False
        process = subprocess.Popen(
            [sys.executable, "-m", "rtdecode", *child.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD | {SUPERVISED: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
        )
        child.process = process

        def follow() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                self._happenings.put(_Line(child, line.rstrip("\n")))
            code = process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # whatever waited in it has no reader
                    pipe.close()  # type: ignore[union-attr]  # both are pipes
            self._happenings.put(_Exit(child, code))

        threading.Thread(target=follow, name=f"follow {child.name}", daemon=True).start()

    def _stop(self, why: str) -> None:
        """*acquire* first: its end reaches the decoders as the last entry of the stream, and they publish the rest."""
        if self._stopping:
            return
        self._stopping = why
        self._logger.info("ending", why=why)
        notify_systemd("STOPPING=1")
        self._deadline = hostclock.now() + self._config.bus.drain_s + PATIENCE_S
        if self._acquire.running and self._acquire.ready:
            self._terminate(self._acquire)
        else:  # no stream yet, so nothing to drain
            for child in (self._acquire, *self._decoders):
                self._terminate(child)

    def _terminate(self, child: Child) -> None:
        if child.process is None:
            return
        child.terminated = True
        if sys.platform == "win32":  # no SIGTERM there; its standard input says the same
            assert child.process.stdin is not None
            with contextlib.suppress(OSError):
                child.process.stdin.close()
        else:
            child.process.terminate()

    def _kill(self) -> None:
        left = [child.process for child in (self._acquire, *self._decoders) if child.process is not None]
        for process in left:
            process.kill()
        for process in left:
            process.wait()

    def _clean(self) -> None:
        if self._config.bus.dir is None:
            shutil.rmtree(self._found.folder, ignore_errors=True)
            return
        for endpoint in self._found.all:  # a folder of the user's own: nothing but ours goes
            if endpoint.startswith("ipc://"):
                with contextlib.suppress(OSError):
                    os.unlink(endpoint.removeprefix("ipc://"))
        for child in self._decoders:
            (self._found.folder / f"{child.name}.progress").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def handler(number: int, _frame: FrameType | None) -> None:
            self._happenings.put(_Signal(signal.Signals(number).name))

        before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, *GROUP_SIGNALS)}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)


def _exit_code(code: int) -> int:
    """A child's exit code as ours: one that a signal ended counts as a process that died."""
    return code if code >= 0 else ProcessError.exit_code


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
