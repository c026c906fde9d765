"""What a subscriber tells its publisher: how many messages never reached it.

An XSUB socket may send messages upstream beside its subscriptions, which begin with a zero or a one; ours begin with a
two. Other publishers ignore them.
"""

import msgspec

_REPORT = b"\x02"


class LossReport(msgspec.Struct, frozen=True, array_like=True):
    """Messages that one subscriber (a random number) has missed since it began."""

    subscriber: int
    missed: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(LossReport)


def write_report(report: LossReport) -> bytes:
    """The frame of a report."""
    return _REPORT + _encoder.encode(report)


def read_report(frame: bytes) -> LossReport | None:
    """The report in a frame, or None where it holds something else."""
    if frame[:1] != _REPORT:
        return None
    try:
        return _decoder.decode(frame[1:])
    except msgspec.MsgspecError:
        return None
