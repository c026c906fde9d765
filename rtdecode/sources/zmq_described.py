"""What the header of the minimal format says of its stream."""

from rtdecode.signal import Origin, StreamInfo
from rtdecode.sources.change import Declared
from rtdecode.sources.declare import Declare, Described, RawChannel, describe
from rtdecode.sources.zmq_format import DTYPES, Samples


def described(header: Samples, declare: Declare) -> Described:
    """Its channels, and how they become SI; raises `SourceError` where they cannot be decoded."""
    n = len(header.channels)
    units = header.units or (header.unit,) * n
    types = header.types or (header.type,) * n
    raw = [RawChannel(*one) for one in zip(header.channels, types, units, strict=True)]
    return describe(raw, declare, f"ZMQ stream {header.stream!r}", "eeg")


def declared(header: Samples, channels: Described) -> Declared:
    """What must be the same again after a loss."""
    units = header.units or (header.unit,) * len(header.channels)
    scales = [float(scale) for scale in channels.scales]
    return Declared(header.sfreq, channels.channels, units, scales, header.dtype)


def stream_info(header: Samples, channels: Described) -> StreamInfo:
    """The stream as it is decoded."""
    return StreamInfo(channels.channels, header.sfreq, f"zmq:{header.stream}", header.stream, channels.declared_by_user)


def origins(header: Samples, channels: Described) -> tuple[Origin, Origin]:
    """The samples and the markers as they are recorded."""
    types = {one.type for one in channels.channels}
    samples = Origin(
        name=header.stream,
        type="MEG" if {"mag", "grad"} & types else "EEG",
        source_id=header.stream,
        sfreq=header.sfreq,
        format=DTYPES[header.dtype],
        n_channels=len(header.channels),
        scales=tuple(float(scale) for scale in channels.scales),
    )
    return samples, Origin(name=f"{header.stream}-markers", type="Markers", source_id=f"{header.stream}-markers")
