"""From recordings and features to a selection of sites, and to what a bundle that decodes from them needs."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from rtdecode.encode.manifest import Contract
from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Conditioning, Filter, Notch, StreamStep
from rtdecode_models.data.recordings import Recording, contract_of, read_recording
from rtdecode_models.sites.contacts import Referencing, best, contacts_of, referencing_step, site_regions, sites
from rtdecode_models.sites.features import Features
from rtdecode_models.sites.probing import Correction, Probed, probe
from rtdecode_models.sites.responses import Measure, lagged, moment_responses, stimulus_responses


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How sites are probed.

    Parameters
    ----------
    contacts : tuple of str
        Patterns (shell wildcards) of the contacts to look at.
    referencing : {"bipolar", "laplacian", "none"}
        How contacts are referenced.
    notch : float, optional
        Mains frequency in Hz; it and its harmonics up to four are taken out.
    band : tuple of float, optional
        Low and high edge in Hz.
    measure : {"mean", "power"}
        What of the signal counts: its mean, or the logarithm of its power.
    edges : tuple of float
        Seconds after a stimulus (times lie between them), or before a moment (each is a lag).
    folds, correction, level, permutations, seed
        See `rtdecode_models.sites.probing.probe`.
    n : int, optional
        Select the so many best of those that respond; all where not given.
    wanted : tuple of str
        Regions to select from; all where there are none.
    """

    contacts: tuple[str, ...] = ("*",)
    referencing: Referencing = "bipolar"
    notch: float | None = None
    band: tuple[float, float] | None = None
    measure: Measure = "power"
    edges: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    folds: int = 5
    correction: Correction = "fdr"
    level: float = 0.05
    permutations: int | None = None
    seed: int = 0
    n: int | None = None
    wanted: tuple[str, ...] = ()


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """One site: its score (correlation on held-out rows), its p-value, and the level at which it would be kept.

    `best_s` are the seconds of its best time, from and to; None where rows are moments. `region` may be empty.
    """

    name: str
    region: str
    score: float
    p: float
    level: float
    best_s: tuple[float, float] | None
    responds: bool
    selected: bool


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found; the file that `write_selection` writes.

    Parameters
    ----------
    recordings : dict
        File -> SHA-256.
    features : dict
        ``file``, ``sha256``, ``width``, ``rows`` (stimuli or moments that were used).
    settings : Settings
        How.
    permutations : int
        How many there were.
    sites : tuple of Site
        All that were looked at, highest score first.
    selected : tuple of str
        In the order of `conditioning`'s channels.
    contract : Contract or None
        The contacts that those need, at the recording's rate; None where none was selected.
    conditioning : Conditioning
        The step that makes the selected sites out of them.
    """

    format: Literal["rtdecode-sites"] = "rtdecode-sites"
    version: int = 1
    recordings: dict[str, str]
    features: dict[str, Any]
    settings: Settings
    permutations: int
    sites: tuple[Site, ...]
    selected: tuple[str, ...]
    contract: Contract | None
    conditioning: Conditioning


def select_sites(
    recordings: Sequence[Path],
    features: Features,
    settings: Settings,
    *,
    file: str = "",
    regions: Mapping[str, str] | None = None,
    progress: Callable[[int], Callable[[], object]] = lambda total: lambda: None,
) -> Selection:
    """Score the sites of one person, and select some of those that respond.

    Parameters
    ----------
    recordings : sequence of Path
        Of one person, with the same contacts; one, where features are of moments.
    features : Features
        Of the stimuli whose markers the recordings hold, or of their moments.
    settings : Settings
        How.
    file : str
        What the features' file is called.
    regions : mapping of str to str, optional
        Contact -> region.
    progress : callable
        See `probe`.

    Raises
    ------
    ConfigError
        Settings make no sense for these recordings, or nothing can be probed.
    RecordingError
        A recording cannot be read.
    """
    if features.sfreq and len(recordings) != 1:
        raise ConfigError(f"{len(recordings)} recordings, and features of moments; expected one, from whose start on")
    read = [read_recording(path.parent, path.name) for path in recordings]
    contract = contract_of(read[0].info)
    names = [channel.name for channel in contract.channels]
    looked_at = [name for name in names if any(fnmatchcase(name, pattern) for pattern in settings.contacts)]
    if not looked_at:
        raise ConfigError(f"no contact of {read[0].name} matches {', '.join(settings.contacts)}; it has {_some(names)}")
    found = sites(settings.referencing, looked_at)
    where = site_regions(found, regions or {}, settings.referencing)
    if settings.wanted:  # a region that nobody has is found before the long part
        best(dict.fromkeys(found, 0.0), None, where, settings.wanted)
    conditioning = Conditioning(stream=(referencing_step(settings.referencing, found), *_filters(settings, contract)))
    probed, n_rows = _probed(read, contract, conditioning, features, settings, progress)

    scores = dict(zip(found, probed.scores.tolist(), strict=True))
    responding = {name: scores[name] for name, responds in zip(found, probed.responds, strict=True) if responds}
    inside = {
        name: score for name, score in responding.items() if not settings.wanted or _within(name, where, settings)
    }
    chosen = set(best(inside, min(settings.n or len(inside), len(inside)))) if inside else set()
    selected = {name: contacts for name, contacts in found.items() if name in chosen}
    needed = set(contacts_of(selected, names))
    table = [
        Site(
            name=name,
            region=where.get(name, ""),
            score=float(probed.scores[at]),
            p=float(probed.p[at]),
            level=float(probed.level[at]),
            best_s=None if features.sfreq else settings.edges[probed.times[at] :][:2],  # type: ignore[arg-type]
            responds=bool(probed.responds[at]),
            selected=name in chosen,
        )
        for at, name in enumerate(found)
    ]
    return Selection(
        recordings={recording.name: recording.sha256 for recording in read},
        features={"file": file, "sha256": features.sha256, "width": features.values.shape[1], "rows": n_rows},
        settings=settings,
        permutations=probed.permutations,
        sites=tuple(sorted(table, key=lambda site: -site.score)),
        selected=tuple(selected),
        contract=Contract(
            channels=tuple(channel for channel in contract.channels if channel.name in needed), sfreq=contract.sfreq
        )
        if selected
        else None,
        conditioning=Conditioning(stream=(referencing_step(settings.referencing, selected),) if selected else ()),
    )


def write_selection(path: Path, selection: Selection) -> None:
    """Write a selection as JSON, whose ``contract`` and ``conditioning`` are spelt as in a bundle's manifest."""
    text = msgspec.json.format(msgspec.json.encode(selection), indent=2)
    try:
        path.write_bytes(text + b"\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def read_selection(path: Path) -> Selection:
    """Read what `write_selection` wrote; `ConfigError` where it is something else."""
    try:
        selection = msgspec.json.decode(path.read_bytes(), type=Selection)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path} is no selection of sites: {error}") from error
    if selection.version != 1:
        raise ConfigError(f"{path} is of version {selection.version}; expected 1")
    return selection


def as_toml(step: StreamStep) -> str:
    """A step as a recipe's TOML spells it, on one line."""
    return _toml(msgspec.to_builtins(step))


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(key))} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _filters(settings: Settings, contract: Contract) -> list[StreamStep]:
    steps: list[StreamStep] = []
    if settings.notch is not None:
        if not 0 < settings.notch < contract.sfreq / 2:
            raise ConfigError(f"a notch at {settings.notch:g} Hz; expected 0 to {contract.sfreq / 2:g} Hz")
        highest = int(contract.sfreq / 2 / settings.notch - 1e-9)
        steps.append(Notch(freq=settings.notch, harmonics=max(1, min(4, highest))))
    if settings.band is not None:
        steps.append(Filter(low=settings.band[0], high=settings.band[1]))
    return steps


def _probed(
    read: Sequence[Recording],
    contract: Contract,
    conditioning: Conditioning,
    features: Features,
    settings: Settings,
    progress: Callable[[int], Callable[[], object]],
) -> tuple[Probed, int]:
    """What came of the probing, and how many rows there were."""
    gap = None
    if features.sfreq:
        measured, moments = moment_responses(read[0], contract, conditioning, features.sfreq, settings.measure)
        lags = sorted({round(edge * features.sfreq) for edge in settings.edges})
        rows, kept = lagged(features.values, lags, moments)
        if not kept.any():
            raise ConfigError(
                f"no moment of {read[0].name} has features at all lags ({lags[0]} to {lags[-1]} rows back); "
                f"there are {len(features.values)} rows at {features.sfreq:g} Hz for {len(moments)} moments"
            )
        responses, gap = measured[kept][:, :, np.newaxis], max(abs(lags[0]), abs(lags[-1])) + 1
    else:
        responses, shown = stimulus_responses(
            read, contract, conditioning, features.names, settings.edges, settings.measure
        )
        rows = features.values[shown]
    probed = probe(
        rows,
        responses,
        continuous_gap=gap,
        folds=settings.folds,
        correction=settings.correction,
        level=settings.level,
        permutations=settings.permutations,
        seed=settings.seed,
        progress=progress,
    )
    return probed, len(rows)


def _within(name: str, where: Mapping[str, str], settings: Settings) -> bool:
    return bool(set(where.get(name, "").split("|")) & set(settings.wanted))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
