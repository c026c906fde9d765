"""Whether a stream is what a bundle was trained for; if not, everything that is different, at once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.errors import ContractError
from rtdecode.signal import DATA_TYPES, Channel, StreamInfo

#: Rates may differ by this share: amplifiers' nominal rates are rounded, and a different rate is a different signal.
RATE_TOLERANCE = 1e-4

#: How a unit is usually declared, for the hint where a stream declares none.
_DECLARE = {"V": "uV", "T": "fT", "T/m": "fT/cm"}

#: So many channels are listed for one problem; another montage would fill the screen with names.
LISTED = 20

ChannelRule = Literal["strict", "by-name"]


def check_contract(info: StreamInfo, contract: Contract, channels: ChannelRule = "strict") -> tuple[int, ...]:
    """Compare a stream with a contract.

    Parameters
    ----------
    info : StreamInfo
        What the stream declares, or the configuration for it.
    contract : Contract
        What the bundle needs.
    channels : {"strict", "by-name"}
        ``strict``: the stream's data channels are exactly the contract's, in its order. ``by-name``: they are among the
        stream's channels. Channels that are no data (``stim``, ``eog``, ``misc``...) do not count, unless the contract
        names them.

    Returns
    -------
    tuple of int
        The columns of `Chunk.samples` that are the contract's channels, in its order.

    Raises
    ------
    ContractError
        The stream does not meet the contract. The message names every difference: missing, extra, unnamed, repeated
        and reordered channels, types, units, rate. Of each it lists `LISTED` channels at most, and counts the rest.
    """
    wanted = {channel.name: channel for channel in contract.channels}
    data = [
        column for column, channel in enumerate(info.channels) if channel.type in DATA_TYPES or channel.name in wanted
    ]
    columns = [column for column in data if info.channels[column].name]
    column_of = {info.channels[column].name: column for column in reversed(columns)}
    offered = [info.channels[column].name for column in columns]
    problems = [*_rate(info.sfreq, contract.sfreq), *_unnamed(len(data) - len(columns), channels)]
    problems += _missing(wanted, info.names)
    problems += _repeated(offered, wanted if channels == "by-name" else None)
    if channels == "strict":
        problems += _extra(offered, wanted)
        problems += _reordered(offered, list(wanted))
    pairs = [(info.channels[column_of[name]], wanted[name]) for name in wanted if name in column_of]
    problems += _types(pairs)
    problems += _units(pairs)
    if problems:
        raise ContractError(
            f"the stream {info.source or '(without a name)'} does not meet the bundle's contract:\n  - "
            + "\n  - ".join(problems)
        )
    return tuple(column_of[name] for name in wanted)


def _rate(found: float, expected: float) -> Iterable[str]:
    if not abs(found - expected) <= RATE_TOLERANCE * expected:
        yield f"rate: {found:.10g} Hz; expected {expected:.10g} Hz: set the amplifier, or train for this rate"


def _unnamed(n: int, rule: ChannelRule) -> Iterable[str]:
    if n and rule == "strict":
        yield (
            f"names: {n} channel{'s' * (n != 1)} without a name; expected the contract's: "
            "declare them in the configuration, [source.declare] names = [...]"
        )


def _missing(wanted: Iterable[str], offered: Sequence[str]) -> Iterable[str]:
    there = set(offered)
    missing = [name for name in wanted if name not in there]
    alike = {_plain(name): name for name in reversed(offered)}
    spelled = [(name, alike[_plain(name)]) for name in missing if _plain(name) in alike]
    absent = [name for name in missing if _plain(name) not in alike]
    if absent:
        yield f"missing: {_listed(absent)}"
    if spelled:
        yield (
            f"spelling: {_some([f'{other!r} instead of {name!r}' for name, other in spelled])}; "
            "names must agree to the letter"
        )


def _plain(name: str) -> str:
    """What the spellings of one name share: ``Fc5.`` (PhysioNet), ``EEG FC5``, ``FC5``; ``MEG 0111``, ``MEG0111``."""
    return "".join(c for c in name.casefold().removeprefix("eeg ") if c.isalnum())


def _repeated(offered: Sequence[str], among: Iterable[str] | None) -> Iterable[str]:
    counts = Counter(offered)
    twice = [name for name, n in counts.items() if n > 1 and (among is None or name in set(among))]
    if twice:
        yield f"repeated: {_listed(twice)}; expected each name once"


def _extra(offered: Sequence[str], wanted: Iterable[str]) -> Iterable[str]:
    known = set(wanted)
    spelled = {_plain(name) for name in known.difference(offered)}  # those have a line of their own
    extra = [name for name in dict.fromkeys(offered) if name not in known and _plain(name) not in spelled]
    if extra:
        yield (
            f"extra: {_listed(extra)}; "
            'leave them out, declare them as no data ("misc"), or pick the contract\'s with channels = "by-name"'
        )


def _reordered(offered: Sequence[str], wanted: Sequence[str]) -> Iterable[str]:
    """The first place where the order differs, among the channels that both have."""
    both = set(offered) & set(wanted)
    found = [name for name in dict.fromkeys(offered) if name in both]
    expected = [name for name in wanted if name in both]
    for position, (one, other) in enumerate(zip(found, expected, strict=True), start=1):
        if one != other:
            yield (
                f"order: {one!r} stands where {other!r} should (channel {position} of the {len(both)} that both have); "
                'set the order, or pick by name with channels = "by-name"'
            )
            return


def _types(pairs: Sequence[tuple[Channel, ContractChannel]]) -> Iterable[str]:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for channel, expected in pairs:
        if channel.type != expected.type:
            groups[channel.type, expected.type].append(channel.name)
    for (found, expected_type), names in groups.items():
        yield f"type: {found!r} instead of {expected_type!r} on {_listed(names)}"


def _units(pairs: Sequence[tuple[Channel, ContractChannel]]) -> Iterable[str]:
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for channel, expected in pairs:
        if channel.unit != expected.unit:
            groups[channel.unit, expected.unit].append(channel.name)
    for (found, expected_unit), names in groups.items():
        if found:
            yield f"unit: {found} instead of {expected_unit} on {_listed(names)}"
        else:
            declare = _DECLARE.get(expected_unit, expected_unit)
            yield (
                f"unit: none declared, or an unknown one, on {_listed(names)}; expected one that converts to "
                f'{expected_unit}: declare it in the configuration, [source.declare] unit = "{declare}" (or whatever '
                "the amplifier sends)"
            )


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} channel{'s' * (len(names) != 1)} ({_some(names)})"


def _some(texts: Sequence[str]) -> str:
    rest = len(texts) - LISTED
    return ", ".join(texts[:LISTED]) + (f" and {rest} more" if rest > 0 else "")
