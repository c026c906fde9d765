"""What a stream leaves open and the configuration declares; and the channel list that comes of both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.errors import SourceError
from rtdecode.signal import DATA_TYPES, Channel
from rtdecode.sources.units import PLAIN_TYPES, channel_type, si_unit


@dataclass(frozen=True, slots=True)
class Declare:
    """The user's word where the stream says nothing. It never overrules what the stream does say.

    Parameters
    ----------
    unit : str
        Unit of the data channels that declare none, e.g. ``"uV"``.
    names : sequence of str
        Names of all channels, in order, where the stream has none.
    type : str
        Type of the channels that declare none, e.g. ``"eeg"``.
    """

    unit: str = ""
    names: Sequence[str] = ()
    type: str = ""


@dataclass(frozen=True, slots=True)
class RawChannel:
    """One channel as the stream or the file spells it, before conversion.

    Parameters
    ----------
    name, type, unit : str
        Empty where not declared.
    position : tuple of float, optional
        Metres, head coordinates.
    scale : float
        What the samples are multiplied by before `unit` holds (a reader that already scaled them by 1e-6 for a unit
        of ``uV`` says 1e6).
    """

    name: str = ""
    type: str = ""
    unit: str = ""
    position: tuple[float, float, float] | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Described:
    """Channels in SI, the factors that take raw samples there, and what the user declared."""

    channels: tuple[Channel, ...]
    scales: NDArray[np.float64]
    declared_by_user: tuple[str, ...]


def describe(raw: Sequence[RawChannel], declare: Declare, source: str, default_type: str = "") -> Described:
    """Put together what the stream says and what the user declares.

    Parameters
    ----------
    raw : sequence of RawChannel
        As the stream spells them.
    declare : Declare
        The user's word.
    source : str
        The stream or file, for messages.
    default_type : str
        Type of the stream as a whole, for channels that declare none.

    Raises
    ------
    SourceError
        Where the declaration has another number of names, is unknown, or contradicts what the stream declares.
    """
    flags: list[str] = []
    names = _names(raw, declare, source, flags)
    types = _types(raw, declare, source, default_type, flags)
    declared = _declared_unit(declare, source)
    channels = []
    scales = np.ones(len(raw))
    filled = 0
    for k, (one, name, type_) in enumerate(zip(raw, names, types, strict=True)):
        unit, factor = si_unit(one.unit)
        if type_ in PLAIN_TYPES:
            unit, factor = "1", 1.0  # codes; senders that call every channel "microvolts" do not scale them
        elif type_ in DATA_TYPES and unit == "1":
            unit = ""  # counts of an amplifier, whose size in volts only the user can know
        if type_ in DATA_TYPES and declared is not None:
            if unit == "":
                unit, factor = declared
                filled += 1
            elif (unit, factor) != declared:
                raise SourceError(
                    f"{source}: channel {name!r} declares its unit as {one.unit!r}, the configuration declares "
                    f"{declare.unit!r}; remove `unit` from [source.declare], or correct the sender"
                )
        scales[k] = one.scale * factor
        channels.append(Channel(name, type_, unit, one.position))
    if filled:
        flags.append(f"unit of {filled} channels: {declare.unit}")
    return Described(tuple(channels), scales, tuple(flags))


def _names(raw: Sequence[RawChannel], declare: Declare, source: str, flags: list[str]) -> list[str]:
    own = [one.name.strip() for one in raw]
    names = own
    if declare.names:
        if len(declare.names) != len(raw):
            raise SourceError(
                f"{source} has {len(raw)} channels, `names` in [source.declare] has {len(declare.names)}; "
                "expected one name for each channel, in order"
            )
        for k, (mine, said) in enumerate(zip(own, declare.names, strict=True)):
            if mine and mine != said:
                raise SourceError(
                    f"{source}: channel {k + 1} is named {mine!r} by the stream and {said!r} by [source.declare]; "
                    "remove `names`, or correct the sender"
                )
        names = list(declare.names)
        if own != names:
            flags.append(f"names of {sum(not mine for mine in own)} channels")
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise SourceError(
            f"{source} has more than one channel named {', '.join(map(repr, repeated))}; expected names that differ"
        )
    return names


def _types(raw: Sequence[RawChannel], declare: Declare, source: str, default_type: str, flags: list[str]) -> list[str]:
    said = channel_type(declare.type)
    if declare.type and said == "misc" and declare.type.strip().lower() != "misc":
        raise SourceError(
            f"`type = {declare.type!r}` in [source.declare] for {source} is not a channel type; "
            "expected eeg, mag, grad, seeg, ecog, dbs, stim, eog, misc..."
        )
    whole = channel_type(default_type)
    types = []
    filled = 0
    for one in raw:
        own = channel_type(one.type)
        if not own and said:
            own = said
            filled += 1
        types.append(own or whole or "misc")
    if filled:
        flags.append(f"type of {filled} channels: {declare.type}")
    return types


def _declared_unit(declare: Declare, source: str) -> tuple[str, float] | None:
    if not declare.unit:
        return None
    unit = si_unit(declare.unit)
    if unit[0] not in ("V", "T", "T/m"):
        raise SourceError(
            f"`unit = {declare.unit!r}` in [source.declare] for {source} is not a unit of brain data; "
            "expected V, mV, uV, nV, T, pT, fT, T/m, fT/cm..."
        )
    return unit
