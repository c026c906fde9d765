"""What a recorded file holds, for people and for programs."""

import contextlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from rtdecode.record.disk import is_written
from rtdecode.record.repair import Progress, examine
from rtdecode.sources.session_reader import CLOCK, EVENTS, RESULTS, SessionReader, StoredSession, load_session


def describe(path: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Streams, samples, holes, results and faults of an XDF file.

    Returns
    -------
    dict
        ``whole`` (bool), ``written`` (a recorder, or a repair, has it now), ``lost_bytes``, ``unclosed`` (streams
        without a footer), ``streams`` (a list), and, of a session of the daemon's own, ``session``.

    Raises
    ------
    RecordingError
        It cannot be read, or is no XDF file.
    """
    findings = examine(path, progress)
    streams = [
        {
            "number": number,
            "name": stream.head.name,
            "type": stream.head.type,
            "format": stream.head.format,
            "channels": stream.head.n_channels,
            "sfreq": stream.head.sfreq,
            "samples": stream.tally.n,
            "seconds": stream.tally.last - stream.tally.first if stream.tally.n else 0.0,
            "clock_offsets": len(stream.tally.offsets),
            "closed": stream.closed,
        }
        for number, stream in findings.streams.items()
    ]
    written = False
    with contextlib.suppress(OSError):
        written = is_written(path)
    told: dict[str, Any] = {
        "file": str(path),
        "bytes": findings.size,
        "whole": findings.whole,
        "written": written,
        "lost_bytes": findings.lost_bytes,
        "unclosed": len(findings.unclosed),
        "streams": streams,
        "session": None,
    }
    if any(stream["name"] == CLOCK for stream in streams) and not findings.torn:
        told["session"] = _session(path)
    return told


def _session(path: Path) -> dict[str, Any]:
    reader = SessionReader(path)
    stored = load_session(path)
    segments: set[int] = set()
    first = last = math.nan
    n_markers = 0
    while (batch := reader.read()) is not None:
        n_markers += len(batch.markers)
        if batch.chunk is not None:
            segments.add(batch.chunk.segment)
            first = float(batch.chunk.stamps[0]) if math.isnan(first) else first
            last = float(batch.chunk.stamps[-1])
    clock = stored.named(CLOCK)
    assert clock is not None
    return {
        "source": reader.info.source,
        "channels": len(reader.info.channels),
        "sfreq": reader.info.sfreq,
        "samples": reader.n_samples,
        "samples_lost": reader.n_lost,
        "seconds": last - first if reader.n_samples else 0.0,
        "segments": len(segments),
        "holes": reader.n_holes,
        "markers": n_markers,
        "events": dict(_events(stored)),
        "results": {
            stream.head.name.removeprefix(f"{RESULTS}."): dict(
                Counter(json.loads(line)["status"] for line in stream.lines)
            )
            for stream in stored.streams.values()
            if stream.head.name.startswith(f"{RESULTS}.") and stream.head.format == "string"
        },
        "writer": clock.head.text("desc/writer"),
    }


def _events(stored: StoredSession) -> Counter[str]:
    events = stored.named(EVENTS)
    found = [json.loads(line) for line in events.lines] if events is not None else []
    return Counter(f"{one['origin']}: {one['event']}" for one in found if one["type"] == "event")
