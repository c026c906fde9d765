"""From a bundle's split to the engine that works while it listens, checked against that for whole windows."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from rtdecode.encode.arrays import read_array
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engine import Engine
from rtdecode.encode.first_layer import FirstSums
from rtdecode.encode.golden import check_incremental
from rtdecode.encode.incremental import IncrementalEngine
from rtdecode.encode.incremental_fit import why_not
from rtdecode.encode.manifest import Split, Unsplit, describe
from rtdecode.encode.prefix import session
from rtdecode.encode.prefix_pool import Company, Prefix, PrefixPool, key_of
from rtdecode.encode.sessions import shared_weights
from rtdecode.encode.window_engine import WindowEngine
from rtdecode.errors import BundleError, GoldenError
from rtdecode.stream.early_steps import EarlySteps
from rtdecode.stream.window import Locked, WindowSpec


def make_incremental(
    bundle: Bundle,
    whole: WindowEngine,
    *,
    windows: Sequence[WindowSpec] = (),
    threads: int = 1,
    spinning: bool = False,
    company: Company | None = None,
) -> Engine:
    """The incremental engine of a bundle, where it has one and the windows fit; else `whole`, which says why.

    Parameters
    ----------
    bundle : Bundle
        Whose encoder runs.
    whole : WindowEngine
        Runs it on whole windows; closed where the other takes its place.
    windows : sequence of WindowSpec
        What is cut, where it is not the bundle's own windows.
    threads, spinning
        As for `OnnxEngine`.
    company : Company, optional
        Where there may be others that hear the same samples: they share the prefix.

    Raises
    ------
    BundleError
        The files of the split do not load or do not fit it, or (`GoldenError`) give other numbers than whole windows.
    """
    split = bundle.manifest.encoder.incremental
    specs = tuple(windows) or bundle.manifest.windows
    if reason := _why_not(bundle, whole, split, specs):
        whole.note("incremental", f"no: {reason}")
        return whole
    assert isinstance(split, Split)
    engine = _engine(bundle, whole, split, specs, threads, spinning, company or Company(PrefixPool(), "", ""))
    try:
        check_incremental(bundle, engine, whole)
        engine.restart(0)  # what it heard is of no use to others
    except GoldenError as error:
        engine.close()
        raise GoldenError(f'{error}; whole windows are run with incremental = "off" (--no-incremental)') from error
    except BaseException:
        engine.close()
        raise
    whole.close()
    return engine


def _why_not(bundle: Bundle, whole: WindowEngine, split: Split | Unsplit | None, windows: Sequence[WindowSpec]) -> str:
    if split is None:
        return "the bundle has no split; rtdecode bundle compile makes one"
    if isinstance(split, Unsplit):
        return split.reason
    if whole.info.provider != "cpu":
        return f"the prefix runs on the CPU, and the provider is {whole.info.provider}"
    steps = bundle.manifest.conditioning.window
    return why_not(windows, steps, bundle.conditioner().sfreq, split.stride)


def _same(bundle: Bundle, split: Split) -> str:
    """All that is behind the prefix: the files and the layout, whatever hop they were made for."""
    files = [bundle.files[name] for name in (split.rest, split.left, split.right) if name is not None]
    weights = "" if split.first is None else bundle.files[split.first.weights]
    layout = msgspec.structs.replace(split, hop=None, share=0.0, at_finish=0.0, per_window=0.0)
    return hashlib.sha256(msgspec.json.encode((files, weights, layout))).hexdigest()


def _engine(
    bundle: Bundle,
    whole: WindowEngine,
    split: Split,
    windows: Sequence[WindowSpec],
    threads: int,
    spinning: bool,
    company: Company,
) -> IncrementalEngine:
    sfreq = bundle.conditioner().sfreq
    steps = bundle.manifest.conditioning.window
    locked = [one for one in windows if isinstance(one, Locked)]
    shape = whole.info.input_shape
    key = key_of(split, bundle.files[split.prefix], steps, shape, sfreq, threads, spinning, company.heard)
    prefix = company.pool.get(key)
    if prefix is None:
        data, where = bundle.read(split.prefix), f"{bundle.source}: {split.prefix}"
        prefix = company.pool.put(Prefix(data, split, shape, sfreq, threads, where, spinning=spinning, key=key))

    def load(name: str | None) -> Any:
        if name is None:
            return None
        return session(bundle.read(name), f"{bundle.source}: {name}", threads, spinning=spinning)

    layer = None
    if split.first is not None:
        name = split.first.weights
        weights = shared_weights(bundle.read(name), lambda data: read_array(data, f"{bundle.source}: {name}"))
        layer = FirstSums(split.first, split.boundary[0], weights)
    try:
        return IncrementalEngine(
            split,
            prefix,
            load(split.rest),
            load(split.left),
            load(split.right),
            steps=EarlySteps(steps, sfreq, locked[0].tmin if locked else 0.0, shape[0]),
            layer=layer,
            windows=windows,
            sfreq=sfreq,
            whole=whole.info,
            words=describe(split, sfreq),
            name=company.name,
            same=_same(bundle, split),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise BundleError(f"{bundle.source}: the files of $.encoder.incremental do not fit it: {error}") from error
