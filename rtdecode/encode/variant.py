"""Whether one bundle can stand in for another, window by window."""

from collections.abc import Iterator

import msgspec
import numpy as np

from rtdecode.encode.bundle import Bundle
from rtdecode.errors import BundleError


def check_variant(bundle: Bundle, variant: Bundle) -> None:
    """Raise `BundleError` unless `variant` decodes the very windows that `bundle` cuts.

    The two share one conditioning chain and one ring, so contract, conditioning and the windows' length must be the
    same; and the same kinds of heads, in order, so that a subscriber gets the kind of message that it subscribed to.
    """
    if differences := list(_differences(bundle, variant)):
        raise BundleError(
            f"{variant.source} cannot stand in for {bundle.source}:\n  - "
            + "\n  - ".join(differences)
            + "\nexpected a cheaper encoder for the same windows"
        )


def _differences(bundle: Bundle, variant: Bundle) -> Iterator[str]:
    ours, theirs = bundle.manifest, variant.manifest
    if ours.contract.sfreq != theirs.contract.sfreq:
        yield f"contract: {theirs.contract.sfreq:g} Hz; expected {ours.contract.sfreq:g} Hz"
    if ours.contract.channels != theirs.contract.channels:
        yield f"contract: {_channels(bundle, variant)}"
    for part in ("stream", "window"):
        found, expected = getattr(theirs.conditioning, part), getattr(ours.conditioning, part)
        if found != expected:
            yield f"conditioning, {part} steps: {_shown(found)}; expected {_shown(expected)}"
    for name in _conditioning_arrays(bundle):
        if name in variant.arrays and not np.array_equal(bundle.array(name), variant.array(name)):
            yield f"conditioning: the values in {name} are others"
    length, expected_length = (one.array(one.manifest.golden.windows).shape[1] for one in (variant, bundle))
    if length != expected_length:
        yield f"windows: of {length} conditioned samples; expected {expected_length}"
    kinds, expected_kinds = ([type(head).__name__ for head in one.heads] for one in (theirs, ours))
    if kinds != expected_kinds:
        yield f"heads: {', '.join(kinds)}; expected {', '.join(expected_kinds)}"


def _channels(bundle: Bundle, variant: Bundle) -> str:
    """The first channel in which the two contracts differ."""
    found, expected = variant.manifest.contract.channels, bundle.manifest.contract.channels
    for at, (one, other) in enumerate(zip(found, expected, strict=False), start=1):
        if one != other:
            return (
                f"channel {at} is {one.name} ({one.type}, {one.unit}); "
                f"expected {other.name} ({other.type}, {other.unit})"
            )
    return f"{len(found)} channels; expected {len(expected)}"


def _conditioning_arrays(bundle: Bundle) -> set[str]:
    conditioning = bundle.manifest.conditioning
    values = (
        value
        for step in (*conditioning.stream, *conditioning.window)
        for value in msgspec.to_builtins(step).values()
        if isinstance(value, str)
    )
    return {value for value in values if value in bundle.arrays}


def _shown(steps: tuple[object, ...]) -> str:
    return ", ".join(str(step) for step in steps) or "none"
