"""A simulated 64-channel EEG amplifier and its stimulus computer: the forward model, played in real time."""

import math
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np

from rtdecode import hostclock
from rtdecode.errors import ConfigError
from rtdecode.signal import Batch, Channel, Chunk, Marker, Origin, StreamInfo
from rtdecode.sources.concepts import MARKER, Concept
from rtdecode.sources.forward import BLOCK, MONTAGE, Levels, Session, Subject

#: Name of the marker stream.
MARKERS = "simulated-markers"


class SimulatedSource:
    """A simulated subject who looks at things; see `rtdecode.sources.forward` for what is simulated and how.

    Samples and stamps depend on the arguments and the start alone: the stamp of sample i is ``start + i / sfreq``,
    however late it was read. Each stimulus is a marker ``concept/NAME`` at the stamp of its first sample.

    Parameters
    ----------
    seed : int
        The session: order of the stimuli, jitter, noise.
    subject : int
        The head: sensor patterns and what they answer to.
    sfreq : float
        Hz.
    soa : float
        Mean seconds from one stimulus to the next.
    seconds : float, optional
        Length; endless where not given.
    speed : float, optional
        1 plays in real time, stamped on the host clock. Another number plays that much faster; None (or infinity) gives
        samples as fast as they are read. Both are stamped from 0, and their chunks have no time of arrival.
    chunk : int, optional
        Samples that the amplifier hands over at once: a fiftieth of a second where not given, or a whole block of the
        model where `speed` is None. Makes no difference to the samples.
    start : float, optional
        Stamp of the first sample: the host clock at the first `read` (at speed 1), or 0.
    shown : sequence of Concept, optional
        What is shown; `rtdecode.sources.concepts.gallery` where not given.
    levels : Levels, optional
        How strong signal and noise are.

    Raises
    ------
    ConfigError
        An argument makes no sense.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        subject: int = 0,
        sfreq: float = 250.0,
        soa: float = 1.0,
        seconds: float | None = None,
        speed: float | None = 1.0,
        chunk: int | None = None,
        start: float | None = None,
        shown: Sequence[Concept] | None = None,
        levels: Levels | None = None,
    ) -> None:
        if seed < 0 or subject < 0:
            raise ConfigError(f"simulated source: seed {seed} and subject {subject}; expected whole numbers from 0")
        if speed is not None and not speed > 0:
            raise ConfigError(f"simulated source: speed {speed}; expected a number above 0, or none for no pacing")
        if seconds is not None and not seconds > 0:
            raise ConfigError(f"simulated source: seconds {seconds}; expected a number above 0")
        if chunk is not None and chunk < 1:
            raise ConfigError(f"simulated source: chunk {chunk}; expected 1 sample or more")
        try:
            self.session = Session(Subject(subject, levels), seed, sfreq=sfreq, soa=soa, shown=shown)
        except ValueError as error:
            raise ConfigError(f"simulated source: {error}") from None
        self._speed = None if speed is None or math.isinf(speed) else speed
        self._live = self._speed == 1.0
        self._chunk = chunk or (BLOCK if self._speed is None else max(1, round(sfreq / 50)))
        self._stop: float = math.inf if seconds is None else round(seconds * sfreq)
        self._start = start
        self._began = math.nan
        self._origin = 0.0
        self._next = 0
        self._closed = threading.Event()
        self.info = StreamInfo(
            channels=tuple(Channel(name, "eeg", "V", position) for name, position in MONTAGE.items()),
            sfreq=sfreq,
            source=f"simulated:subject {subject}, session {seed}",
            source_id=f"rtdecode-simulated-{subject}-{seed}",
        )

    def open(self) -> StreamInfo:
        """Make the amplifier ready. It starts at the first `read`, however long one waits until then."""
        self.session.block(0)
        self._began = math.nan
        self._next = 0
        self._closed.clear()
        return self.info

    @property
    def origins(self) -> tuple[Origin, ...]:
        """None: nothing is rawer than its chunks."""
        return ()

    def read(self, timeout: float) -> Batch | None:
        """The samples that are due by now, at most a block of them, and the stimuli among them."""
        if self._next >= self._stop or self._closed.is_set():
            return None
        if math.isnan(self._began):
            self._began = hostclock.now()
            self._origin = self._start if self._start is not None else self._began if self._live else 0.0
        stop = self._wait(timeout)
        if self._closed.is_set():
            return None
        if stop <= self._next:
            return Batch(None, (), self._stamp(self._next - 1))
        return self._batch(self._next, stop)

    def close(self) -> None:
        """Switch it off; a `read` that waits in another thread returns."""
        self._closed.set()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stamp(self, index: int) -> float:
        return self._origin + index / self.info.sfreq

    def _wait(self, timeout: float) -> int:
        """Wait until a chunk is due, and return one past the last sample to give: `_next` where none was in time."""
        end = min(self._next + self._chunk, self._stop)
        if self._speed is None:
            return int(end)
        pace = self.info.sfreq * self._speed
        # the last sample of the chunk must have been taken; deadlines count from the start and so do not drift
        due = self._began + (end - 1) / pace
        now = hostclock.now()
        if due > now:
            # the next block takes milliseconds to make: make it while nobody waits for it
            self.session.block((self._next + BLOCK // 2) // BLOCK)
            now = hostclock.now()
            if due - now > timeout:
                self._closed.wait(max(0.0, timeout))
                return self._next
            if due > now:
                self._closed.wait(due - now)
            return int(end)
        behind = int((now - self._began) * pace) + 1 - self._next
        whole = min(behind // self._chunk * self._chunk, max(BLOCK, self._chunk))
        return int(min(self._next + max(whole, self._chunk), self._stop))

    def _batch(self, first: int, stop: int) -> Batch:
        n = stop - first
        samples = self.session.samples(first, n)
        stamps = self._origin + np.arange(first, stop) / self.info.sfreq
        markers = [
            Marker(self._stamp(s.index), MARKER.format(self.session.shown[s.concept].name), MARKERS)
            for s in self.session.stimuli(first, n)
        ]
        self._next = stop
        arrived = hostclock.now() if self._live else math.nan
        watermark = math.inf if stop >= self._stop else float(stamps[-1])
        return Batch(Chunk(samples, stamps, first, arrived=arrived), markers, watermark)
