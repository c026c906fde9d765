"""What was made of an encoder, for people."""

from collections.abc import Iterator

from rtdecode.encode.manifest import Split, Unsplit


def in_words(split: Split | Unsplit | None) -> Iterator[str]:
    """A split in sentences, for reports and terminals."""
    if split is None:
        yield "Nobody looked whether the encoder can work while it listens."
        return
    if isinstance(split, Unsplit):
        yield f"The encoder is run on whole windows: {split.reason}."
        return
    cut = "marker-locked windows" if split.hop is None else f"a window every {split.hop:g} samples"
    yield f"For {cut}: {100 * split.share:.1f} % of the arithmetic runs on new samples, in blocks of {split.block}."
    positions = ", ".join(
        f"{one.positions} x {one.features}"
        + (f" ({one.left} + {one.right} made again)" if one.left + one.right else "")
        for one in split.boundary
    )
    yield f"What is kept of a window: {positions}; a position every {split.stride} samples."
    gain = 1 / max(split.at_finish, 1e-9)
    yield f"When a window is due, {100 * split.at_finish:.1f} % of the arithmetic is left: {gain:.1f} times less."
    yield f"In all, a window takes {100 * split.per_window:.0f} % of what it takes whole."
