"""Whether a stream that is back is what it was: the difference, named."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rtdecode.errors import SourceError
from rtdecode.signal import Channel


@dataclass(frozen=True, slots=True)
class Declared:
    """What must not change while a session runs.

    Parameters
    ----------
    sfreq : float
        Nominal rate in Hz.
    channels : sequence of Channel
        Names, types and SI units count; positions may be measured again.
    units : sequence of str
        Units as the sender spells them, for people.
    scales : sequence of float
        What takes the sender's numbers to SI: a stream in mV is another than it was in uV.
    format : str
        Type of the numbers; empty where the source has only one.
    identity : dict of str
        Who the sender says it is: ``source_id``, ``type``, ``host``...
    """

    sfreq: float
    channels: Sequence[Channel]
    units: Sequence[str] = ()
    scales: Sequence[float] = ()
    format: str = ""
    identity: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: what it is in, and both sides."""

    what: str
    now: str
    was: str

    def __str__(self) -> str:
        return f"{self.what}: {self.now} instead of {self.was}"


class ChangedError(SourceError):
    """A stream is back as something else.

    Parameters
    ----------
    stream : str
        Which, for the message.
    changes : sequence of Change
        At least one.
    """

    def __init__(self, stream: str, changes: Sequence[Change]) -> None:
        self.changes = tuple(changes)
        super().__init__(
            f"{stream} came back with other {'; other '.join(map(str, changes))}; start the sender as it was before, "
            "or restart the daemon if this is meant"
        )

    @property
    def details(self) -> dict[str, str | int | float | bool | None]:
        """For an event: the names of what changed, and the first change's two sides."""
        first = self.changes[0]
        return {"changed": ", ".join(one.what for one in self.changes), "was": first.was, "is": first.now}


def changes(was: Declared, now: Declared) -> list[Change]:
    """Every difference, the gravest first; empty where there is none."""
    return [*_identity(was, now), *_numbers(was, now), *_channels(was, now)]


def _identity(was: Declared, now: Declared) -> Iterator[Change]:
    for key, before in was.identity.items():
        after = now.identity.get(key, "")
        if after != before:
            yield Change(key, repr(after), repr(before))


def _numbers(was: Declared, now: Declared) -> Iterator[Change]:
    if now.sfreq != was.sfreq:
        yield Change("rate", f"{now.sfreq:g} Hz", f"{was.sfreq:g} Hz")
    if now.format != was.format:
        yield Change("format", now.format, was.format)


def _channels(was: Declared, now: Declared) -> Iterator[Change]:
    before, after = [one.name for one in was.channels], [one.name for one in now.channels]
    if len(before) != len(after):
        yield Change("number of channels", str(len(after)), str(len(before)))
        return
    if before != after:
        same = Counter(before) == Counter(after)
        at = next(k for k in range(len(before)) if before[k] != after[k])
        what = "order of channels" if same else "names of channels"
        yield Change(what, f"{after[at]!r} at place {at + 1}", repr(before[at]))
        if same:
            return  # types and units went with them
    for one, other in zip(was.channels, now.channels, strict=True):
        if one.type != other.type:
            yield Change(f"type of channel {one.name!r}", other.type, one.type)
            return
    units = [channel.unit for channel in was.channels], [channel.unit for channel in now.channels]
    scales = list(was.scales) or [1.0] * len(before), list(now.scales) or [1.0] * len(before)
    for k, name in enumerate(before):
        if units[0][k] != units[1][k] or scales[0][k] != scales[1][k]:
            yield Change(f"unit of channel {name!r}", _unit(now, k), _unit(was, k))
            return


def _unit(declared: Declared, k: int) -> str:
    spelled = declared.units[k] if k < len(declared.units) else declared.channels[k].unit
    return spelled or "none"
