"""Finding LSL streams, reading what they declare, and pulling from them without losing what has come."""

import contextlib
import ctypes
import math
import socket
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import hostclock
from rtdecode.errors import SourceError, StreamNotFoundError
from rtdecode.sources.declare import RawChannel

_FORMATS = {1: "float32", 2: "double64", 3: "string", 4: "int32", 5: "int16", 6: "int8", 7: "int64"}
_LOST, _TIMED_OUT = -2, -1
_AT_ONCE = ctypes.c_double(0.0)
#: The shortest search, in seconds. liblsl asks known peers one by one only after the half second that it gives
#: multicast, and a search of just that half second takes five more: it ends while it begins to ask them (1.18.0).
LOOK_S = 0.7
#: How long a second stream that matches is looked for.
SETTLE_S = LOOK_S


def pylsl() -> Any:
    """The module pylsl, or a `SourceError` that says why there is none."""
    try:
        import pylsl as module
    except (ImportError, RuntimeError, OSError) as error:
        raise SourceError(
            f"LSL is not usable here ({error}); expected pylsl with its liblsl (on older Linux: install liblsl, or set "
            "PYLSL_LIB to it)"
        ) from error
    return module


def configure_lsl(content: str) -> None:
    """Give liblsl its configuration, for this process; before the first stream is resolved or served.

    Parameters
    ----------
    content : str
        What would stand in ``lsl_api.cfg``.
    """
    pylsl().set_config_content(content)


@dataclass(frozen=True, slots=True)
class StreamQuery:
    """Which stream is meant: all that is given must match."""

    name: str | None = None
    type: str | None = None
    source_id: str | None = None
    hostname: str | None = None

    def __str__(self) -> str:
        pairs = {"name": self.name, "type": self.type, "source_id": self.source_id, "hostname": self.hostname}
        return ", ".join(f"{key} {value!r}" for key, value in pairs.items() if value is not None) or "any stream"

    @property
    def predicate(self) -> str:
        """XPath over a stream's description, as liblsl takes it."""
        pairs = {"name": self.name, "type": self.type, "source_id": self.source_id, "hostname": self.hostname}
        return " and ".join(f"{key}={_quoted(value)}" for key, value in pairs.items() if value is not None)

    def matches(self, info: Any) -> bool:
        """Whether a stream is what the predicate asks for."""
        wanted = {"name": self.name, "type": self.type, "source_id": self.source_id, "hostname": self.hostname}
        return all(getattr(info, key)() == value for key, value in wanted.items() if value is not None)


class MarkerQuery(StreamQuery):
    """Which marker stream is meant."""


def _quoted(value: str) -> str:
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise SourceError(f"a stream cannot be looked for by {value!r}: it holds both kinds of quotes")


def resolve(query: StreamQuery, timeout: float, settle: float = SETTLE_S) -> Any:
    """The one stream that matches.

    Parameters
    ----------
    query : StreamQuery
        Which one.
    timeout : float
        Seconds to wait for it; at least `LOOK_S`.
    settle : float
        Seconds to wait for a second one, which would make the match ambiguous.

    Raises
    ------
    StreamNotFoundError
        Where none came; it lists the streams that are visible.
    SourceError
        Where more than one matches.
    """
    if not query.predicate:
        raise SourceError("no stream was asked for; set `name`, `type` or `source_id` of [source]")
    found = pylsl().resolve_bypred(query.predicate, 1, max(timeout, LOOK_S))
    if not found:
        raise none_found(query, timeout, unique(pylsl().resolve_streams(1.0)))
    if settle:
        found = unique([*found, *pylsl().resolve_bypred(query.predicate, len(unique(found)) + 1, settle)])
    return found_one(found, query)


def none_found(query: StreamQuery, timeout: float, visible: list[Any]) -> StreamNotFoundError:
    """That no stream matches, and which there are."""
    listed = "\n  ".join(describe_stream(info) for info in visible)
    advice = "no stream is visible at all; start the sender, and check that network and firewall let LSL through"
    if visible:
        advice = f"visible are:\n  {listed}\nset `name`, `type` or `source_id` of [source] to one of these"
    return StreamNotFoundError(f"no LSL stream with {query} within {timeout:g} s; {advice}")


def found_one(found: list[Any], query: StreamQuery) -> Any:
    """The stream, where there is but one that matches; raises `SourceError` with all of them where not."""
    if len(found) > 1:
        listed = "\n  ".join(describe_stream(info) for info in found)
        raise SourceError(
            f"{len(found)} LSL streams have {query}, expected one:\n  {listed}\n"
            "set `source_id`, or `name` and `type`, so that one remains"
        )
    return found[0]


def unique(infos: list[Any]) -> list[Any]:
    """Each stream once, also where it answered on several network interfaces."""
    return list({info.uid(): info for info in infos}.values())


def describe_stream(info: Any) -> str:
    """One line about a stream, for people."""
    return (
        f"name {info.name()!r}, type {info.type()!r}, source_id {info.source_id()!r}: {info.channel_count()} channels "
        f"of {_FORMATS.get(info.channel_format(), '?')}, {info.nominal_srate():g} Hz, on {info.hostname()}"
    )


def same_host(info: Any) -> bool:
    """Whether a stream names this machine as its host."""
    return bool(info.hostname() == socket.gethostname())


def channels_of(info: Any) -> list[RawChannel]:
    """What the stream's description says about its channels (XDF wiki, meta-data of EEG streams).

    Raises
    ------
    SourceError
        It is no XML: liblsl writes control characters as they are.
    """
    try:
        root = ElementTree.fromstring(info.as_xml())
    except ElementTree.ParseError as error:
        raise SourceError(
            f"the LSL stream ({describe_stream(info)}) has a description that is no XML ({error}): a name, label or "
            "unit holds control characters; correct the sender"
        ) from None
    listed = root.findall("./desc/channels/channel")
    if len(listed) != info.channel_count():  # a description of other channels than those that come describes nothing
        return [RawChannel() for _ in range(info.channel_count())]
    return [
        RawChannel(
            (one.findtext("label") or one.findtext("name") or "").strip(),
            (one.findtext("type") or "").strip(),
            (one.findtext("unit") or "").strip(),
            _position(one),
        )
        for one in listed
    ]


def _position(channel: "ElementTree.Element[str]") -> tuple[float, float, float] | None:
    """Millimetres in the description, metres here."""
    try:
        x, y, z = (float(channel.findtext(f"location/{axis}") or "") * 1e-3 for axis in "XYZ")
    except ValueError:
        return None
    return x, y, z


def format_of(info: Any) -> str:
    """Name of the number format of a stream."""
    return _FORMATS.get(info.channel_format(), f"format {info.channel_format()}")


def open_inlet(found: Any, timeout: float) -> tuple[Any, Any]:
    """An inlet, and the whole description."""
    # as_numpy: text comes as bytes; pylsl's own decoding would lose the marker over one that is not UTF-8.
    inlet = pylsl().StreamInlet(found, recover=False, processing_flags=0, as_numpy=True)
    return inlet, inlet.info(timeout)


@contextlib.contextmanager
def reachable(found: Any) -> Iterator[None]:
    """Says which stream it was that could not be opened."""
    module = pylsl()
    try:
        yield
    except (module.util.LostError, module.util.TimeoutError) as error:
        raise StreamNotFoundError(
            f"an LSL stream is visible ({describe_stream(found)}) but cannot be opened ({error}); check that the "
            "firewall lets its TCP port through, or restart the sender"
        ) from error


class Puller:
    """Pulls samples of a numeric stream.

    A pull waits for the first sample and then takes what else is there, or comes until a given time. liblsl hands out
    nothing any more once it has noticed that the sender is gone, not even what it has already copied into the caller's
    memory during that very call; that part is recognised here by its stamps, and given.

    Parameters
    ----------
    inlet : pylsl.StreamInlet
        The inlet.
    max_samples : int
        Samples taken by one pull at most.
    """

    def __init__(self, inlet: Any, max_samples: int) -> None:
        n_channels = inlet.channel_count
        self._inlet = inlet
        self._n_channels = n_channels
        self._values = np.empty((max_samples, n_channels), inlet.np_dtype)
        self._stamps = np.full(max_samples, np.nan)  # NaN between two pulls
        # What liblsl is called with, made once: the first sample's place, and that of the others.
        self._function = inlet.do_pull_chunk
        self._code = ctypes.c_int()
        self._first = self._arguments(0, 1)
        self._others = self._arguments(1, max_samples)
        self._result = ctypes.byref(self._code)
        self.lost = False
        #: Host time at which the newest sample was in our hands.
        self.arrived = math.nan

    def pull(
        self, timeout: float, until: float = -math.inf, most: int = 0
    ) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
        """Samples, shape (n, channels), and raw stamps, shape (n,), as soon as there is one.

        Those that come up to the host time `until`, as long as there are not `most`, are given with it: they leave
        liblsl's hands at once, and those of the caller are spared. Once `lost` is set, nothing will come any more.
        """
        n, most = self._take(0, timeout), min(most, len(self._stamps) - 1)
        while 0 < n < most and not self.lost and (left := until - hostclock.now()) > 0:
            if not (more := self._take(n, left)):
                break
            n += more
        stamps = self._stamps[:n]
        taken = self._values[:n].copy(), stamps.copy()
        stamps.fill(np.nan)
        return taken

    def _take(self, begin: int, timeout: float) -> int:
        """Put samples into our memory from `begin` on: the next one, and those that are there by then; how many."""
        first, others = self._first, self._others
        if begin:
            first, others = self._arguments(begin, begin + 1), self._arguments(begin + 1, len(self._stamps))
        n = self._once(first, ctypes.c_double(timeout), begin)
        if n and not self.lost:
            n += self._once(others, _AT_ONCE, begin + 1)
        if n:
            self.arrived = hostclock.now()
        return n

    def _arguments(self, begin: int, stop: int) -> tuple[Any, ...]:
        values, stamps = self._values[begin:stop], self._stamps[begin:stop]
        return (
            self._inlet.obj,
            ctypes.c_void_p(values.ctypes.data),
            ctypes.c_void_p(stamps.ctypes.data),
            ctypes.c_size_t(values.size),
            ctypes.c_size_t(len(stamps)),
        )

    def _once(self, arguments: tuple[Any, ...], timeout: "ctypes.c_double", begin: int) -> int:
        elements = self._function(*arguments, timeout, self._result)
        code = self._code.value
        if code == _LOST:
            self.lost = True
            return int(np.argmax(np.append(np.isnan(self._stamps[begin:]), True)))
        if code not in (0, _TIMED_OUT):
            raise SourceError(f"liblsl failed to pull samples (error {code}); restart the sender")
        return int(elements // self._n_channels)


def measure_offset(inlet: Any, timeout: float) -> tuple[float, float] | None:
    """Host clock minus sender's clock, and its uncertainty, in seconds; None where the sender does not answer in time.

    Raises
    ------
    pylsl.LostError
        Where the sender is gone.
    """
    from pylsl.lib import lib
    from pylsl.util import handle_error

    correct = lib["lsl_time_correction_ex"]  # pylsl wraps only the variant that keeps the uncertainty to itself
    correct.restype = ctypes.c_double
    remote, uncertainty, code = ctypes.c_double(), ctypes.c_double(), ctypes.c_int()
    offset = correct(
        inlet.obj, ctypes.byref(remote), ctypes.byref(uncertainty), ctypes.c_double(timeout), ctypes.byref(code)
    )
    if code.value == _TIMED_OUT:
        return None
    handle_error(code)
    return float(offset), float(uncertainty.value)
