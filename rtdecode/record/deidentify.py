"""A copy of an XDF file that tells no names and no dates.

Of the headers only what describes the signal is kept; everything else a sender wrote there is left out, known or not.
Host names are removed from what is kept, and stamps that are times of day are counted from the first day's midnight, to
the last bit. Samples and the text of markers are data, and stay as they are.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import RecordingError
from rtdecode.record import xdf
from rtdecode.record.disk import why
from rtdecode.record.repair import Progress
from rtdecode.sources.session_reader import CLOCK, EVENTS, RESULTS, ClockRow, open_bytes
from rtdecode.sources.xdf_chunks import (
    BOUNDARY,
    FILE_HEADER,
    MAGIC,
    SAMPLES,
    STREAM_FOOTER,
    STREAM_HEADER,
    Block,
    StreamHead,
    Torn,
    read_head,
    read_offset,
    read_samples,
    scan,
)

#: What is kept of a stream's header, beside its channels.
_KEPT = ("name", "type", "channel_count", "nominal_srate", "channel_format")
_KEPT_OF_A_CHANNEL = ("label", "type", "unit", "impedance", "scaling_factor", "range", "hardware", "filtering")
_KEPT_OF_A_SESSION = ("version", "stream_info", "columns", "raw_scales")
#: What lines of JSON tell of the machine and the day.
_TELLING = frozenset({"utc_anchor", "clock_id", "source", "source_id", "config"})
#: Texts in the details of events that are words of our own; other texts there may be paths, file names, hosts.
_OWN_WORDS = frozenset({"state", "previous", "process", "how"})
#: Stamps from here on (1973) are times of day in seconds since 1970, not seconds since a machine was started.
_EPOCH_LIKE = 1e8
_DAY = 86_400


class Deidentifier:
    """Rewrites the chunks of one file.

    Parameters
    ----------
    names : frozenset of str
        What is replaced wherever it stands in text that is kept: host names, above all.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = sorted((name for name in names if len(name) > 2), key=len, reverse=True)
        self._heads: dict[int, StreamHead] = {}
        self._tallies: dict[int, xdf.Tally] = {}
        self._shifts: dict[int, float] = {}

    def rewrite(self, block: Block) -> bytes:
        """A chunk without names and dates; nothing for what is not kept."""
        if block.tag == FILE_HEADER:
            return xdf.file_header()
        if block.tag == BOUNDARY:
            return xdf.boundary()
        if block.tag == STREAM_HEADER:
            head = self._heads[block.stream] = read_head(block.content)
            self._tallies[block.stream] = xdf.Tally()
            return xdf.chunk(STREAM_HEADER, block.stream.to_bytes(4, "little") + self._header(head))
        if block.tag == SAMPLES:
            return self._samples(block)
        if block.tag == STREAM_FOOTER:
            return xdf.stream_footer(block.stream, self._tallies[block.stream])
        time, value = read_offset(block.content)
        shift = self._shift(block.stream, time)
        self._tallies[block.stream].offsets.append((time - shift, value + shift))
        return xdf.clock_offset(block.stream, time - shift, value + shift)

    def _shift(self, stream: int, stamp: float) -> float:
        """Whole days: subtracting a whole number loses no bit of a stamp that is larger."""
        if stream not in self._shifts:
            self._shifts[stream] = math.floor(stamp / _DAY) * _DAY if stamp > _EPOCH_LIKE else 0.0
        return self._shifts[stream]

    def _header(self, head: StreamHead) -> bytes:
        info = ElementTree.Element("info")
        for name in _KEPT:
            ElementTree.SubElement(info, name).text = self._clean(head.text(name))
        desc = ElementTree.SubElement(info, "desc")
        channels = head.root.find("desc/channels")
        if channels is not None:
            kept = ElementTree.SubElement(desc, "channels")
            for channel in channels.findall("channel"):
                self._channel(ElementTree.SubElement(kept, "channel"), channel)
        for name in _KEPT_OF_A_SESSION if head.name == CLOCK else ():
            text = head.text(f"desc/{name}")
            ElementTree.SubElement(desc, name).text = self._json(text) if name == "stream_info" else self._clean(text)
        return b'<?xml version="1.0"?>' + ElementTree.tostring(info, "unicode").encode()

    def _channel(self, kept: ElementTree.Element, channel: ElementTree.Element) -> None:
        for name in _KEPT_OF_A_CHANNEL:
            if channel.findtext(name) is not None:
                ElementTree.SubElement(kept, name).text = self._clean(channel.findtext(name) or "")
        location = channel.find("location")
        if location is not None:
            place = ElementTree.SubElement(kept, "location")
            for axis in "XYZ":
                ElementTree.SubElement(place, axis).text = location.findtext(axis) or ""

    def _samples(self, block: Block) -> bytes:
        head = self._heads[block.stream]
        tally = self._tallies[block.stream]
        stamps, values = read_samples(head, block.content, tally.last)
        if not len(stamps):
            return b""
        stamps = stamps - self._shift(block.stream, float(stamps[0]))
        tally.count(stamps)
        if isinstance(values, np.ndarray):
            if head.name == CLOCK:
                values = self._rows(values)
            return xdf.samples(block.stream, head.format, stamps, values)
        told = head.name == EVENTS or head.name.startswith(f"{RESULTS}.")
        rows = [[self._json(text) if told else text for text in row] for row in values]
        return xdf.text_samples(block.stream, stamps.tolist(), rows)

    def _rows(self, values: NDArray[Any]) -> NDArray[Any]:
        """Rows of the clock, which name raw samples by their stamps: those of the file's first stream."""
        shift = self._shifts.get(min(self._heads), 0.0)
        there = ClockRow._fields.index("stamp_there")
        values = values.copy()
        values[values[:, ClockRow._fields.index("apart")] == 0, there] -= shift
        return values

    def _clean(self, text: str) -> str:
        for name in self._names:
            text = text.replace(name, "removed")
        return text

    def _json(self, text: str) -> str:
        """A line of JSON without what tells of the machine and the day; as it is where there is nothing such in it."""
        try:
            line = json.loads(text)
        except ValueError:
            return self._clean(text)
        return self._clean(json.dumps(_without(line)))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("type") == "event":
            value = {**value, "text": "", "details": _numbers(value.get("details"))}
        return {key: _blank(key, one) if key in _TELLING else _without(one) for key, one in value.items()}
    return [_without(one) for one in value] if isinstance(value, list) else value


def _numbers(details: Any) -> dict[str, Any]:
    """Of an event's details what is no text, and words of our own."""
    given = details.items() if isinstance(details, dict) else ()
    return {key: one for key, one in given if not isinstance(one, str) or key in _OWN_WORDS}


def _blank(key: str, value: Any) -> Any:
    return [0.0, 0.0] if key == "utc_anchor" else "" if isinstance(value, str) else value


def identifying(data: Any) -> frozenset[str]:
    """Names that a file's headers give to machines and people."""
    return frozenset(_names(data))


def _names(data: Any) -> Iterator[str]:
    for block in scan(data):
        if isinstance(block, Torn) or block.tag != STREAM_HEADER:
            continue
        head = read_head(block.content)
        for path in ("hostname", "session_id", "uid", "desc/subject/name", "desc/subject/id", "desc/experimenter/name"):
            yield head.text(path)
        clock_id = head.text("desc/clock_id").split(":")
        yield from clock_id[1:]


def deidentify(path: Path, out: Path, progress: Progress | None = None) -> None:
    """Write a copy of a whole XDF file that tells no names and no dates.

    Raises
    ------
    RecordingError
        The file is damaged (repair it first), or the copy exists or cannot be written.
    """
    fresh = out.with_name(out.name + ".writing")
    try:
        if out.exists():
            raise RecordingError(f"{out} exists; expected a new file")
        with open_bytes(path) as data, fresh.open("xb") as file:
            rewriter = Deidentifier(identifying(data))
            file.write(MAGIC)
            for block in scan(data):
                if isinstance(block, Torn):
                    raise RecordingError(f"{path} is damaged; `rtdecode session repair {path}` first")
                file.write(rewriter.rewrite(block))
                if progress is not None:
                    progress(block.stop, len(data))
        os.replace(fresh, out)
    except (ValueError, KeyError) as error:
        raise RecordingError(f"{path} is damaged ({error}); `rtdecode session repair {path}` first") from None
    except OSError as error:
        raise RecordingError(f"{out} cannot be written: {why(error)}") from error
    finally:
        fresh.unlink(missing_ok=True)
