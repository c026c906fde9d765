"""Small data for tests of training: stimuli to be found and classes to be told apart, in memory, as arrays, as EDF."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.stream.steps import Conditioning
from rtdecode.stream.window import Locked
from rtdecode_models.data.shape import Shape
from rtdecode_models.data.source import Deployed
from rtdecode_models.data.trials import Ceiling, Dataset, Gallery, Trials
from rtdecode_models.systems.encoder import Encoder

TIME, CHANNELS, SFREQ, ITEMS, WIDTH = 20, 4, 50.0, 12, 6
NAMES = tuple(f"E{at}" for at in range(CHANNELS))
CLASSES = ("left", "right", "rest")


def gallery(first=0, n=ITEMS):
    rows = np.random.default_rng(100 + first).standard_normal((n, WIDTH)).astype(np.float32)
    blurred = np.stack([rows, rows, rows], axis=1)
    names = tuple(f"item{first + at}" for at in range(n))
    return Gallery(names, {"image": rows, "text": rows[:, ::-1].copy(), "image_blurred": blurred})


def trials(seed, n, subjects=("s1",), session="a", shown=None, noise=1.0, **labels):
    """Windows that are a fixed linear map of the stimulus's embedding, and of the class, in noise."""
    rng = np.random.default_rng(seed)
    shown = shown or gallery()
    there = np.random.default_rng(7).standard_normal((WIDTH, TIME * CHANNELS)) / 2
    classes = np.random.default_rng(8).standard_normal((len(CLASSES), TIME * CHANNELS))
    item, label = rng.integers(0, len(shown.names), n), np.arange(n) % len(CLASSES)
    clean = shown.embeddings["image"][item] @ there + classes[label]
    x = (clean + noise * rng.standard_normal(clean.shape)).reshape(n, TIME, CHANNELS)
    return Trials(
        x=x.astype(np.float32),
        sfreq=SFREQ,
        subject=np.arange(n) % len(subjects),
        session=np.zeros(n, np.int64),
        subjects=subjects,
        sessions=(session,),
        labels={"label": label, **labels},
        classes={"label": CLASSES},
        item=item,
        gallery=shown,
    )


def joined(parts):
    """Trials of several sessions, one after the other."""
    subjects = tuple(dict.fromkeys(part.subjects[0] for part in parts))
    return Trials(
        x=np.concatenate([part.x for part in parts]),
        sfreq=SFREQ,
        subject=np.concatenate([np.full(len(part), subjects.index(part.subjects[0])) for part in parts]),
        session=np.concatenate([np.full(len(part), at) for at, part in enumerate(parts)]),
        subjects=subjects,
        sessions=tuple(part.sessions[0] for part in parts),
        labels={"label": np.concatenate([part.labels["label"] for part in parts])},
        classes={"label": CLASSES},
        item=np.concatenate([part.item for part in parts]),
        gallery=parts[0].gallery,
    )


@dataclass
class Source:
    """A `TrialSource` of sessions ``a``, ``b``... whose test sessions, once declared, show other stimuli."""

    names: tuple[str, ...] = ("a", "b", "c")
    people: tuple[str, ...] = ("s1", "s1", "s1")
    test_sessions: tuple[str, ...] = ()
    n: int = 60
    noise: float = 1.0
    offset: int = 0
    ceiling: Ceiling | None = None

    def __post_init__(self):
        self.read = []

    @property
    def sessions(self):
        return self.names

    def subject_of(self, session):
        return self.people[self.names.index(session)]

    def _trials(self, session):
        self.read.append(session)
        shown = gallery(50, 20) if session in self.test_sessions else gallery()
        seed = self.names.index(session) + (self.offset if session in ("c", *self.test_sessions) else 0)
        return trials(seed, self.n, (self.subject_of(session),), session, shown, self.noise)

    def dataset(self, train, fit_on=None):
        together = joined([self._trials(name) for name in self.names if name in train])
        return Dataset(
            train=together,
            test=None,
            contract=Contract(
                channels=tuple(ContractChannel(name=name, type="eeg", unit="V") for name in NAMES), sfreq=SFREQ
            ),
            conditioning=Conditioning(),
            arrays={},
            window=Locked(tmin=0.0, tmax=TIME / SFREQ, markers=("*",)),
            markers={name: (name,) for name in CLASSES},
            simulated=True,
            ceiling=self.ceiling,
            provenance={"sessions": sorted(train)},
            positions=np.random.default_rng(0).random((CHANNELS, 2)),
        )

    def test(self, sessions, fitted):
        return joined([self._trials(name) for name in self.names if name in sessions])

    def deployed(self, fitted, subject=None):
        return Deployed({}, fitted.train.x[:70])


def table(**changes):
    """A recipe for UBP on this, that one may change."""
    return {
        "name": "kit",
        "seeds": [0, 1],
        "data": {"kind": "simulated", "experiment": "things-eeg"},
        "split": {"test": {"by": "session", "names": ["c"]}},
        "model": {"system": "ubp"},
        "loss": [{"kind": "infonce", "target": "image"}],
        "training": {"epochs": 4, "batch_size": 20, "learning_rate": 3e-3},
        **changes,
    }


class Denoising(Encoder):
    """A system of one's own (``train_kit:denoising``), whose loss is there only while it trains."""

    outputs = ("denoised",)

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(shape.n_channels, shape.n_channels)

    def forward(self, window: torch.Tensor, subject: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        if not self.training:
            return {"denoised": self.linear(window)}
        denoised = self.linear(window + torch.randn_like(window))
        return {"denoised": denoised, "loss_denoising": (denoised - window).square().mean()}


class Personal(Encoder):
    """A system of one's own (``train_kit:personal``) with a matrix for each subject."""

    outputs = ("embedding",)

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.matrices = torch.nn.Parameter(torch.ones(shape.n_subjects, shape.n_channels, WIDTH))

    def forward(self, window: torch.Tensor, subject: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        return {"embedding": (window.mean(dim=1, keepdim=True) @ self.matrices[subject])[:, 0]}


def personal(options: Mapping[str, Any], shape: Shape) -> Encoder:
    return Personal(shape)


def denoising(options: Mapping[str, Any], shape: Shape) -> Encoder:
    if options:
        raise ValueError(f"it has no options, not {sorted(options)}")
    return Denoising(shape)


def write_arrays(folder: Path, n: int = 60) -> dict[str, Any]:
    """The same as arrays on disk; the recipe's table ``data`` for them."""
    shown = gallery()
    np.save(folder / "image.npy", shown.embeddings["image"])
    (folder / "names.json").write_text(json.dumps(list(shown.names)))
    sessions = []
    for seed, name in enumerate("abc"):
        part = trials(seed, n, session=name)
        np.save(folder / f"{name}.npy", part.x)
        np.save(folder / f"{name}_label.npy", part.labels["label"])
        np.save(folder / f"{name}_item.npy", part.item)
        sessions.append(
            {
                "name": name,
                "subject": "s1",
                "windows": f"{name}.npy",
                "labels": {"label": f"{name}_label.npy"},
                "items": f"{name}_item.npy",
            }
        )
    return {
        "kind": "arrays",
        "sessions": sessions,
        "signal": {"channels": list(NAMES), "type": "eeg", "unit": "V", "sfreq": SFREQ},
        "tmin": 0.0,
        "tmax": TIME / SFREQ,
        "layout": "time_first",
        "classes": {"label": list(CLASSES)},
        "stimuli": {"names": "names.json", "embeddings": {"image": "image.npy"}},
    }


def write_recipe(path: Path, recipe: dict[str, Any]) -> Path:
    """A recipe as a TOML file: every value but tables within lists is inline."""
    path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in recipe.items()))
    return path


def _toml(value) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
