"""Golden windows: known input, known output, run on this machine before anything live is trusted to it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engine import Engine, Outputs
from rtdecode.errors import EncodeError, GoldenError
from rtdecode.stream.condition import Conditioner

#: Conditioning computes in float64 and casts once: between machines, only the last bits of float32 may differ.
RAW_TOLERANCE = 1e-5

#: An encoder that is run in parts computes the same in another order.
SPLIT_TOLERANCE = 1e-5

#: Raw samples that go through the conditioning chain at once; any number gives the same.
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well golden windows came out.

    Parameters
    ----------
    what : str
        The output's name, or ``conditioning``.
    windows : int
        How many windows were compared.
    worst : float
        Largest error of a value, as a share of the expected values' largest magnitude.
    worst_window : int
        Where it was.
    tolerance : float
        What is allowed.
    """

    what: str
    windows: int
    worst: float
    worst_window: int
    tolerance: float


def check_golden(bundle: Bundle, engine: Engine) -> tuple[Agreement, ...]:
    """Encode every golden window, and condition the golden raw stream where there is one.

    Returns
    -------
    tuple of Agreement
        One for each output, and one for the conditioning where the bundle has a raw stream.

    Raises
    ------
    GoldenError
        A window does not come out as expected, or not at all; the message names the window, the output, the error and
        the tolerance.
    """
    agreements = check_encoder(bundle, engine)
    conditioning = check_conditioning(bundle)
    return agreements if conditioning is None else (*agreements, conditioning)


def check_encoder(bundle: Bundle, engine: Engine) -> tuple[Agreement, ...]:
    """Encode every golden window and compare each output; raise `GoldenError` where one is off."""
    golden = bundle.manifest.golden
    windows = bundle.array(golden.windows)
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in golden.outputs}
    # The same samples again and again, as a stream of its own: an incremental engine starts over at each window.
    for index, window in enumerate(windows):
        engine.restart(0)
        try:
            engine.advance(window, 0)
            outputs = engine.finish(window, 0)
        except EncodeError as error:
            raise GoldenError(
                f"{bundle.source}: golden window {index} cannot be encoded on this machine: {error}"
            ) from error
        for name, values in found.items():
            values.append(outputs[name])
    engine.restart(0)
    info = engine.info
    on = f"on this machine ({info.runtime}, {info.provider}, {info.precision})"
    return tuple(
        compare(np.stack(found[name]), bundle.array(file), golden.tolerance, name, f"{bundle.source}: {on}")
        for name, file in golden.outputs.items()
    )


def check_incremental(bundle: Bundle, engine: Engine, whole: Engine) -> tuple[Agreement, ...]:
    """Compare an engine that works while it listens with the one that encodes whole windows, on the golden windows.

    Each window is heard as a stream that begins elsewhere: shared with others, and announced by a marker.

    Raises
    ------
    GoldenError
        A number differs by more than `SPLIT_TOLERANCE` of the largest.
    """
    windows = bundle.array(bundle.manifest.golden.windows)
    expected = [whole.finish(window, 0) for window in windows]
    found: list[Outputs] = []
    for index, window in enumerate(windows):
        start, half = 7 * index, len(window) // 2
        engine.restart(start)
        engine.begin(start, window[:0])
        engine.advance(window[:half], start)
        engine.advance(window[half:], start + half)
        try:
            found.append(engine.finish(window, start))
        except EncodeError as error:
            raise GoldenError(f"{bundle.source}: golden window {index}, as its samples come: {error}") from error
    engine.restart(0)
    return tuple(
        compare(
            np.stack([one[name] for one in found]),
            np.stack([one[name] for one in expected]),
            SPLIT_TOLERANCE,
            name,
            f"{bundle.source}: the incremental engine, against whole windows",
        )
        for name in bundle.manifest.encoder.outputs
    )


def check_conditioning(bundle: Bundle) -> Agreement | None:
    """Send the golden raw stream through the chain and compare its windows; None where the bundle has no raw stream.

    The raw stream is the start of a segment, and its windows are those of the manifest's first window specification.
    """
    golden = bundle.manifest.golden
    if golden.raw is None:
        return None
    expected = bundle.array(golden.windows)[: len(golden.raw_starts)]
    conditioned = _condition(bundle.conditioner(), bundle.array(golden.raw))
    steps = bundle.window_conditioner(bundle.manifest.windows[0])
    n = expected.shape[1]
    last = golden.raw_starts[-1]
    if last + n > len(conditioned):
        raise GoldenError(
            f"{bundle.source}: the golden raw stream gives {len(conditioned)} conditioned samples; the window at "
            f"{last} ends at {last + n}"
        )
    found = np.stack([steps(conditioned[start : start + n]) for start in golden.raw_starts])
    return compare(found, expected, RAW_TOLERANCE, "conditioning", f"{bundle.source}: on this machine")


def _condition(conditioner: Conditioner, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    conditioner.restart(0)
    return np.concatenate([conditioner.push(raw[at : at + _CHUNK]) for at in range(0, len(raw), _CHUNK)])


def compare(
    found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float, what: str, where: str
) -> Agreement:
    """Compare what windows gave with what they should give.

    Parameters
    ----------
    found, expected : ndarray, shape (windows, ...)
        Outputs.
    tolerance : float
        Largest allowed error, as a share of the largest magnitude in `expected`. Where that is zero, of one.
    what : str
        The output's name.
    where : str
        For the message.

    Raises
    ------
    GoldenError
        A value is not finite, or further off than the tolerance.
    """
    if found.shape != expected.shape:
        raise GoldenError(f"{where}: {what} has shape {found.shape}; expected {expected.shape}")
    wanted = expected.astype(np.float64)
    scale = float(np.abs(wanted).max()) or 1.0
    errors = np.abs(found.astype(np.float64) - wanted).reshape(len(wanted), -1).max(axis=1) / scale
    if not np.isfinite(errors).all():
        index = int(np.flatnonzero(~np.isfinite(errors))[0])
        raise GoldenError(f"{where}: golden window {index}: {what} has NaN or Inf")
    worst = int(errors.argmax())
    if errors[worst] > tolerance:
        raise GoldenError(
            f"{where}: golden window {worst}: {what} is off by {errors[worst]:.3g} of the largest value; "
            f"allowed is {tolerance:.3g} ({int((errors > tolerance).sum())} of {len(errors)} windows are off): "
            "this machine, provider or library version does not compute what the bundle was tested with"
        )
    return Agreement(what, len(errors), float(errors[worst]), worst, tolerance)
