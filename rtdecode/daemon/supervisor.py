"""``rtdecode run``: *acquire* and *decode*, as processes of their own; as many of each as the configuration gives.

A process that crashes or hangs is started again; one that says what is wrong (a contract that is not met, a damaged
bundle) is not, since it would say so again. The end of *acquire* is the end of the session, once the decoders have
decoded what it gave. Each child's standard input is held open here: it closes when this process dies, however it dies,
and the child ends.
"""

import contextlib
import os
import queue
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import msgspec
import structlog

from rtdecode import hostclock
from rtdecode.config import Config
from rtdecode.config.processes import layout
from rtdecode.daemon.child import Child, Exit, Line, describe_exit
from rtdecode.daemon.endpoints import endpoints, prepare
from rtdecode.daemon.guard import Guard
from rtdecode.daemon.heartbeat import Pulse, WakingClock
from rtdecode.daemon.lock import locked
from rtdecode.daemon.process import GROUP_SIGNALS, SUPERVISED, announce, follow_parent
from rtdecode.daemon.supervised import BEAT, LEAVING, REFUSED, News
from rtdecode.daemon.systemd import Watchdog, notify
from rtdecode.errors import NotRecordedError, ProcessError
from rtdecode.wire.endpoint import refuse_live_ipc

#: A process that crashes more often than this within the window below is given up. The window is of the time that it
#: was seen to run: one that hangs at once each time would otherwise be replaced for ever.
RESTARTS = 5
RESTART_WINDOW_S = 60.0
FIRST_BACKOFF_S = 0.2

#: Beyond what the processes allow themselves, before they are killed.
PATIENCE_S = 15.0

#: Exit codes by which a process says what is wrong (see `rtdecode.errors`); anything else is a crash.
SAID = frozenset({*range(1, 8), NotRecordedError.exit_code})

#: Seconds from one look at the children to the next.
TICK_S = 0.25

#: A pause of our own that is worth a line in the log.
LONG_SLEEP_S = 1.0


@dataclass(frozen=True, slots=True)
class _Start:
    child: Child


@dataclass(frozen=True, slots=True)
class _Signal:
    name: str


_Happening = Line | Exit | _Start | _Signal


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
        self._hold = hold
        hosts = layout(config)
        self._acquires = [Child(host.name, host.members) for host in hosts.acquire]
        self._decoders = [Child(host.name, host.members) for host in hosts.decode]
        self._children = [*self._acquires, *self._decoders]
        self._awake = WakingClock(hostclock.now())
        self._guard = Guard()
        self._watchdog = Watchdog()
        self._refusals: set[str] = set()
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
        with locked(self._found.folder):
            self._run()
        return self._code

    def _run(self) -> None:
        for name in self._config.pipelines:  # what an earlier session published says nothing about this one
            (self._found.folder / f"{name}.progress").unlink(missing_ok=True)
        if parent := os.environ.get(SUPERVISED):  # we are somebody's child too
            follow_parent(int(parent), lambda: self._happenings.put(_Signal("our parent's end")), lambda _line: None)
        with self._signals():
            try:
                self._guard.revive()
                for child in self._children:
                    self._start(child)
                self._loop()
            finally:
                self._kill()
                self._guard.close()
                self._clean()

    # --- what happens -------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while any(child.running or self._waits(child) for child in self._children):
            happening = self._next()
            self._watch()
            match happening:
                case Line(child, text):
                    self._line(child, text)
                case _Start(child):
                    child.waits = False
                    if not self._stopping:
                        self._start(child)
                case Exit(child, code):
                    self._ended(child, code)
                case _Signal(name):
                    self._stop(name)
                case None if hostclock.now() >= self._deadline:
                    left = [child.name for child in self._children if child.running]
                    self._logger.error("killing what does not end", left=", ".join(left), patience_s=PATIENCE_S)
                    self._fail(ProcessError.exit_code)
                    return

    def _next(self) -> _Happening | None:
        try:
            return self._happenings.get(timeout=max(0.0, min(TICK_S, self._deadline - hostclock.now())))
        except queue.Empty:
            return None

    def _watch(self) -> None:
        """Look whether every process turns; one that hangs is killed, and its end is then handled as a crash."""
        now = hostclock.now()
        awake = self._awake.tick(now)
        if self._awake.slept > LONG_SLEEP_S:
            self._logger.warning(
                "this process did not run; nobody is blamed for it", seconds=round(self._awake.slept, 1)
            )
        for child in self._children:
            if child.pulse is not None and not child.hung and child.pulse.overdue(awake):
                child.hung = child.pulse.describe()
                self._logger.error("hangs; killed", about=child.name, how=child.hung)
                child.kill()
        self._guard.revive()
        if not any(child.hung for child in self._children if child.running):
            self._watchdog.ping(now)

    def _line(self, child: Child, text: str) -> None:
        if child.pulse is None:
            return
        if text == BEAT:
            child.pulse.beat(self._awake.now)
        elif text == LEAVING:
            child.pulse.leave(self._awake.now)
        elif text.startswith(REFUSED):
            self._refused(text.removeprefix(REFUSED))
        elif text.startswith("READY "):
            child.ready = text.removeprefix("READY ")
            child.pulse.beat(self._awake.now)
            self._logger.info("ready", about=child.name)
            self._announce_ready()

    def _announce_ready(self) -> None:
        if self._announced or not all(child.ready for child in self._children):
            return
        self._announced = True
        where = " ".join(f"{child.name}={_publish(child)}" for child in self._decoders)
        announce(f"READY run control={self._found.acquire} {where}".rstrip())
        notify("READY=1")

    def _refused(self, line: str) -> None:
        """What the system refused a process: *acquire* says it, once for all processes and all their restarts."""
        try:
            news = msgspec.json.decode(line, type=News)
        except msgspec.DecodeError:
            return
        if news.text not in self._refusals:
            self._refusals.add(news.text)
            self._acquires[0].tell(news)

    def _ended(self, child: Child, code: int) -> None:
        assert child.process is not None
        self._guard.forget(child.process.pid)
        child.ended()
        if child.terminated and code == -signal.SIGTERM:
            code = 0  # it was on its way out, or had not begun
        if child in self._acquires:
            self._acquire_ended(child, code)
        else:
            self._decoder_ended(child, code)

    def _acquire_ended(self, child: Child, code: int) -> None:
        if code and code not in SAID and not self._stopping and self._start_again(child, code):
            return
        if code:
            self._fail(code)
            self._logger.error("acquire failed", about=child.name, code=_exit_code(code))
        others = any(one.running or self._waits(one) for one in self._acquires)
        if others and self._announced and (code == 0 or code in SAID):
            return  # it has told its decoders that nothing more will come
        if others:
            self._stop(f"the end of {child.name}")
            return
        if code in (0, NotRecordedError.exit_code) and not self._stopping and not self._config.session.exit_at_end:
            return  # the decoders wait for a signal, as they were told
        self._stopping = self._stopping or "the end of acquire"
        # With an end that was announced they are leaving already; after a crash nobody told them.
        for child in self._decoders:
            child.terminate()
        self._deadline = hostclock.now() + PATIENCE_S

    def _decoder_ended(self, child: Child, code: int) -> None:
        if not code:
            self._logger.info("ended", about=child.name)
            if not self._acquiring or self._stopping:
                return
        elif code in SAID or self._stopping:
            self._fail(code)
            self._give_up(child, f"it failed with code {_exit_code(code)}")
        else:
            self._start_again(child, code)
        if not any(one.running or self._waits(one) for one in self._decoders):
            self._no_pipeline_left()

    def _no_pipeline_left(self) -> None:
        """Nothing decodes; what is being recorded is recorded all the same."""
        if self._config.recording is None or not self._announced:
            self._stop("the end of the last pipeline")
            return
        text = "no pipeline is left; recording goes on until the source ends or the session is stopped"
        self._logger.warning(text)
        for child in self._acquires:
            child.tell(News(event="no pipeline", text=text))

    # --- crashes ------------------------------------------------------------------------------------------------------

    def _start_again(self, child: Child, code: int) -> bool:
        """Start a crashed process again in a while, and say so; False where it is given up."""
        how = child.hung or describe_exit(code)
        child.crashes = [at for at in child.crashes if child.lived - at < RESTART_WINDOW_S] + [child.lived]
        crashes = len(child.crashes)
        if crashes > RESTARTS:
            self._fail(code)
            self._give_up(child, f"it crashed {crashes} times within {RESTART_WINDOW_S:g} s; at last: {how}")
            return False
        wait = FIRST_BACKOFF_S * 2 ** (crashes - 1)
        child.restarts += 1
        child.waits = True
        what = how if child.hung else f"crashed ({how})"
        self._logger.warning("crashed; started again", about=child.name, how=how, after_s=wait, restarts=child.restarts)
        details: dict[str, str | int | float | bool | None] = {
            "process": child.name,
            "how": how,
            "after_s": wait,
            "restarts": child.restarts,
        }
        text = f"{child.label} {what}; started again in {wait:g} s"
        self._tell_others(child, News(event="crashed", text=text, details=details))
        text = f"{child.label} was started again; it {what}"
        child.tell(News(event="restarted", text=text, details=details))
        timer = threading.Timer(wait, lambda: self._happenings.put(_Start(child)))
        timer.daemon = True
        timer.start()
        return True

    def _give_up(self, child: Child, why: str) -> None:
        child.given_up = True
        self._logger.error("given up", about=child.name, why=why)
        self._tell_others(
            child,
            News(event="given up", text=f"{child.label} is given up: {why}", details={"process": child.name}),
        )
        if not self._announced:  # a session that cannot begin as it was asked for does not begin at all
            self._stop(f"{child.label} cannot run")

    def _tell_others(self, child: Child, news: News) -> None:
        """Have it published: of a pipeline by *acquire*, of *acquire* by every pipeline that runs."""
        if child in self._decoders:
            for one in self._acquires:
                one.tell(news)
            return
        for one in self._decoders:
            if one.running:
                one.tell(news)

    @property
    def _acquiring(self) -> bool:
        return any(child.running for child in self._acquires)

    def _waits(self, child: Child) -> bool:
        """Whether a crashed process is about to be started again."""
        return child.waits and not child.given_up and not self._stopping

    def _fail(self, code: int) -> None:
        self._code = self._code or _exit_code(code)

    # --- beginning and end --------------------------------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        path, session = str(self._config.path), self._config.session
        if child in self._acquires:
            # Whoever it was to wait for is there by the time that the session has begun, and would not ask again.
            begin = ["--resumed"] if self._announced else ["--hold", str(self._hold + self._followers(child))]
            arguments = ["acquire", path, *([] if child is self._acquires[0] else [child.name]), *begin]
        else:
            arguments = ["decode", path, child.name]
        patience = session.start_s + max(getattr(one, "timeout_s", 0.0) for one in self._config.inputs.values())
        child.start(arguments, self._happenings, Pulse(self._awake.now, patience, session.hang_s))  # type: ignore[arg-type]
        assert child.process is not None
        self._guard.watch(child.process.pid)

    def _stop(self, why: str) -> None:
        """*acquire* first: its end reaches the decoders as the last entry of the stream, and they publish the rest."""
        if self._stopping:
            return
        self._stopping = why
        self._logger.info("ending", why=why)
        notify("STOPPING=1")
        self._deadline = hostclock.now() + self._config.bus.drain_s + PATIENCE_S
        reading = [child for child in self._acquires if child.running and child.ready]
        # Where there is no stream yet, there is nothing to drain.
        for child in reading if len(reading) == len(self._acquires) else self._children:
            child.terminate()

    def _followers(self, child: Child) -> int:
        """Pipelines that read what an *acquire* owns."""
        return sum(pipeline.source in child.members for pipeline in self._config.pipelines.values())

    def _kill(self) -> None:
        left = [child.process for child in self._children if child.process is not None]
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
        for name in self._config.pipelines:
            (self._found.folder / f"{name}.progress").unlink(missing_ok=True)

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


def _publish(child: Child) -> str:
    """Where a pipeline really publishes; port 0 became another."""
    pairs = dict(pair.partition("=")[::2] for pair in child.ready.split())
    return pairs["publish"]
