"""Everything that can be checked about a bundle on this machine, one check after another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rtdecode.encode.bundle import Bundle
from rtdecode.encode.container import SUMS, check_sums, open_container, read_sums
from rtdecode.encode.engine import Engine
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import Agreement, check_conditioning, check_encoder
from rtdecode.encode.onnx import Fallback
from rtdecode.errors import RtdecodeError


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Parameters
    ----------
    name : str
        What was checked.
    figure : str
        What was found, in a few words.
    error : RtdecodeError or None
        What is wrong; None where nothing is.
    """

    name: str
    figure: str
    error: RtdecodeError | None = None

    @property
    def ok(self) -> bool:
        """Whether it passed."""
        return self.error is None


def verify_bundle(path: Path, *, provider: str = "cpu", fallback: Fallback = "forbid") -> Iterator[Check]:
    """Check a bundle: hashes, manifest, ONNX shapes, golden windows and golden raw stream, on this machine.

    Yields each check as it is done. The last one is the first that failed, since those after it would rest on it; only
    the two golden checks are both done.
    """
    failed: list[RtdecodeError] = []

    def attempt(name: str, work: Callable[[], str]) -> Check:
        try:
            return Check(name, work())
        except RtdecodeError as error:
            failed.append(error)
            return Check(name, "failed", error)

    yield attempt("hashes", lambda: _hashes(path))
    if failed:
        return
    opened: list[Bundle] = []
    yield attempt("manifest", lambda: _manifest(path, opened))
    if failed:
        return
    engines: list[Engine] = []
    yield attempt("encoder", lambda: _encoder(opened[0], provider, fallback, engines))
    if failed:
        return
    yield attempt("golden windows", lambda: "; ".join(map(describe, check_encoder(opened[0], engines[0]))))
    yield attempt("golden raw stream", lambda: _conditioning(opened[0]))
    engines[0].close()


def _hashes(path: Path) -> str:
    container = open_container(path)
    _, sums = read_sums(container)
    check_sums(container, sums)
    size = sum(container.sizes().values())
    return f"{len(sums)} files, {size / 1e6:.2f} MB, as {SUMS} says"


def _manifest(path: Path, opened: list[Bundle]) -> str:
    bundle = Bundle.open(path)
    opened.append(bundle)
    return f"version {bundle.manifest.version}, {len(bundle.arrays)} arrays, all parts fit"


def _encoder(bundle: Bundle, provider: str, fallback: Fallback, engines: list[Engine]) -> str:
    engine = make_engine(bundle, provider=provider, fallback=fallback)
    engines.append(engine)
    info = engine.info
    time, channels = info.input_shape
    outputs = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in info.output_shapes)
    instead = f" instead of {info.asked}" if info.fell_back else ""
    return f"{info.runtime} on {info.provider}{instead}: {time} samples of {channels} channels -> {outputs}"


def _conditioning(bundle: Bundle) -> str:
    agreement = check_conditioning(bundle)
    return "the bundle has none" if agreement is None else describe(agreement)


def describe(agreement: Agreement) -> str:
    """An agreement in a few words."""
    windows = f"{agreement.windows} window{'s' * (agreement.windows != 1)}"
    return f"{agreement.what}: {windows}, largest error {agreement.worst:.2g} (allowed {agreement.tolerance:.2g})"
