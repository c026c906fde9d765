"""What the pipelines publish, taken as any subscriber takes it, and given to the recorder.

One thread for each pipeline. What it cannot take in time is lost at the publisher (and counted), as for any slow
subscriber: neither a decoder nor the samples' way to the disk ever waits for it.
"""

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.errors import RtdecodeError
from rtdecode.record.recorder import Recorder
from rtdecode.record.session import fits_a_stream
from rtdecode.wire.messages import Event, Samples, Window
from rtdecode.wire.payload import to_json
from rtdecode.wire.subscriber import Received, Subscriber

#: Messages that may wait here before the publisher drops some.
_HWM = 10_000

#: Seconds between questions where a pipeline publishes.
_ASK_S = 0.2

#: Seconds without a publisher after which is asked again where it is.
_GONE_S = 1.0


class ResultRecorder:
    """Records the results of all pipelines of a session.

    Parameters
    ----------
    recorder : Recorder
        Where they go.
    pipelines : sequence of str
        Their names.
    where : callable
        The endpoint on which a pipeline publishes now; None while it does not say.
    """

    def __init__(self, recorder: Recorder, pipelines: Sequence[str], where: Callable[[str], str | None]) -> None:
        self._recorder = recorder
        self._where = where
        self._ending = threading.Event()
        self._over = {name: threading.Event() for name in pipelines}
        self.missed = dict.fromkeys(pipelines, 0)
        self._threads = [
            threading.Thread(target=self._follow, args=(name,), name=f"record-{name}", daemon=True)
            for name in pipelines
        ]
        for thread in self._threads:
            thread.start()

    def close(self, timeout: float) -> None:
        """End, once every pipeline has said that it is at its end, or `timeout` seconds have passed."""
        deadline = hostclock.now() + timeout
        for over in self._over.values():
            over.wait(max(0.0, deadline - hostclock.now()))
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _follow(self, name: str) -> None:
        while not self._ending.is_set():
            endpoint = self._where(name)
            if endpoint is None:
                self._ending.wait(_ASK_S)
                continue
            try:
                with Subscriber(endpoint, [f"{name}."], hwm=_HWM) as subscriber:
                    self._record(name, subscriber)
            except RtdecodeError:  # an endpoint that cannot be used now; ask again
                self._ending.wait(_ASK_S)

    def _record(self, name: str, subscriber: Subscriber) -> None:
        """Until the end, or until the publisher has been away for long enough to be somewhere else."""
        missed = self.missed[name]
        seen = hostclock.now()
        while not self._ending.is_set():
            received = subscriber.receive(0.1)
            self.missed[name] = missed + sum(subscriber.missed.values())
            if received is not None:
                self._take(name, received)
            if received is not None or subscriber.connected:
                seen = hostclock.now()
            elif hostclock.now() - seen > _GONE_S:
                return

    def _take(self, name: str, received: Received) -> None:
        message = received.message
        if message.retained or isinstance(message, Samples):
            return
        if isinstance(message, Event) and message.origin != name:
            return  # handed on by the pipeline, and recorded where it happened
        if not isinstance(message, Window):
            stamp = message.stamp if isinstance(message, Event) else received.at
            self._recorder.published(to_json(message, received.arrays).decode(), stamp)
            if isinstance(message, Event) and message.event in ("end", "stop"):
                self._over[name].set()
            return
        apart: Mapping[str, NDArray[np.generic]] = received.arrays
        whole = not all(fits_a_stream(array) for array in apart.values())
        line = to_json(message, received.arrays, with_arrays=whole).decode()
        published = message.ledger.published
        stamp = received.at if published is None else published
        self._recorder.result(name, line, stamp, {} if whole else apart)
