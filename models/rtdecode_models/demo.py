"""The demo's bundle: an encoder trained on the simulated subject of ``rtdecode demo`` (``python -m`` this module).

Training, calibration and test trials are other sessions (other noise, order and jitter) of the same subject, and go
through the same decoder as live samples do. The encoder maps a trial to the space of the concepts' embeddings, where
the gallery is searched by cosine; see ``docs/demo.md``.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdecode.encode.manifest import Contract, RetrieveHead
from rtdecode.heads.calibrate import calibrate_threshold
from rtdecode.sources.concepts import WIDTH, Concept, embeddings, gallery, unseen
from rtdecode.sources.forward import Levels
from rtdecode.sources.simulated import SimulatedSource
from rtdecode.stream.steps import Conditioning, Filter, Notch, Reference
from rtdecode.stream.window import Locked
from rtdecode_export.bundle import export_bundle
from rtdecode_models.data.recordings import Epochs, Recording, contract_of, epochs, fit_conditioning

SUBJECT = 0
#: Seeds of the sessions; the demo's own are below 1000.
TRAINING = (1001, 1002, 1003, 1004, 1005, 1006)
CALIBRATION, CALIBRATION_UNSEEN, TEST, TEST_UNSEEN, NOISE = 2001, 2002, 3001, 3002, 3003
#: Seconds of each session, a stimulus a second.
LENGTH = 1600.0
#: Average reference, no hum, no drift, nothing above the response; then each channel is standardised.
CHAIN = Conditioning(stream=(Reference(), Notch(freq=50.0), Filter(low=0.5, high=40.0)))
WINDOW = Locked(tmin=0.0, tmax=0.7, markers=("concept/*",), name="seen")
#: How many of the windows of a thing that is not in the gallery may get a name; see `calibrate_threshold`. At this
#: signal to noise known and unknown things overlap: to refuse more of these would cost too many right answers.
FALSE_ACCEPT = 0.5

Floats = NDArray[np.float32]


class ConceptEncoder(nn.Module):
    """Spatial filters, a temporal filter on each, means of 20 ms, and a linear map to a unit vector.

    Linear up to the normalisation, as the simulated responses are linear in the embedding. After the spatial and
    temporal stages of Schirrmeister et al., "Deep learning with convolutional neural networks for EEG decoding", Human
    Brain Mapping 2017, figure 2.

    Parameters
    ----------
    time, channels : int
        Shape of a window.
    width : int
        Of the embedding.
    filters : int
        Spatial filters.
    """

    def __init__(self, time: int, channels: int, width: int = WIDTH, filters: int = 40) -> None:
        super().__init__()
        self.spatial = nn.Conv1d(channels, filters, 1)
        self.temporal = nn.Conv1d(filters, filters, 15, padding=7, groups=filters)
        self.norm = nn.BatchNorm1d(filters)
        self.pool = nn.AvgPool1d(5)
        self.dropout = nn.Dropout(0.5)
        self.out = nn.Linear(filters * (time // 5), width)

    def forward(self, window: Tensor) -> Tensor:
        """Map (n, time, channels) to unit vectors (n, width)."""
        hidden = self.pool(self.norm(self.temporal(self.spatial(window.transpose(1, 2)))))
        return nn.functional.normalize(self.out(self.dropout(hidden.flatten(1))), dim=1)


def session(
    seed: int, length: float, shown: Sequence[Concept] | None = None, levels: Levels | None = None
) -> Recording:
    """Record one session of the subject."""
    source = SimulatedSource(seed=seed, subject=SUBJECT, seconds=length, speed=None, shown=shown, levels=levels)
    batches = []
    with source:
        while (batch := source.read(0.0)) is not None:
            batches.append(batch)
    return Recording(source.info.source, "", source.info, tuple(batches))


def cut(recording: Recording, shown: Sequence[Concept], chain: Conditioning, arrays: dict[str, Any]) -> Epochs:
    """Every trial of a session, labelled by its place in `shown`."""
    labels = {item.name: (f"concept/{item.name}",) for item in shown}
    return epochs([recording], contract_of(recording.info), chain, arrays, [WINDOW], labels)


def train(x: Floats, y: NDArray[np.int64], targets: Floats, *, passes: int, seed: int, say: Any) -> ConceptEncoder:
    """Fit the encoder: cross-entropy over cosines to the whole gallery, at a learnt temperature.

    This is the contrastive loss of Radford et al., "Learning transferable visual models from natural language
    supervision" (2021), with every item of the gallery as a candidate instead of those of a batch.
    """
    torch.manual_seed(seed)
    model = ConceptEncoder(x.shape[1], x.shape[2], targets.shape[1])
    temperature = nn.Parameter(torch.tensor(14.0).log())
    windows, truth, items = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(targets)
    batch = 128
    optimiser = torch.optim.AdamW([*model.parameters(), temperature], lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=passes * (len(x) // batch))
    for number in range(passes):
        model.train()
        total = 0.0
        order = torch.randperm(len(x))
        for first in range(0, len(x) // batch * batch, batch):
            rows = order[first : first + batch]
            loss = nn.functional.cross_entropy(model(windows[rows]) @ items.T * temperature.exp(), truth[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        say(f"pass {number + 1:2d} of {passes}: loss {total / (len(x) // batch):.3f}")
    return model.eval()


def cosines(model: ConceptEncoder, x: Floats, targets: Floats) -> Floats:
    """Cosine of each window with each item, shape (n, items)."""
    with torch.no_grad():
        parts = [model(torch.from_numpy(x[first : first + 256])).numpy() for first in range(0, len(x), 256)]
    return np.asarray(np.concatenate(parts) @ targets.T)


def top(scores: NDArray[np.floating[Any]], y: NDArray[np.int64], k: int) -> float:
    """Share of trials whose truth is among the k best."""
    better = (scores > scores[np.arange(len(y)), y][:, None]).sum(axis=1)
    return float((better < k).mean())


def only(*parts: str, **others: float) -> Levels:
    """The default levels of these parts of the simulation, and nothing of the rest."""
    silent = Levels(evoked=0.0, common=0.0, background=0.0, alpha=0.0, blink=0.0, line=0.0, sensor=0.0)
    default = Levels()
    return replace(silent, **{part: getattr(default, part) for part in parts}, **others)


def pooled(x: Floats) -> NDArray[np.float64]:
    """Means of 20 ms, as the encoder takes them: (n, time, channels) -> (n, time / 5 * channels)."""
    n, time, channels = x.shape
    means = x[:, : time // 5 * 5].reshape(n, time // 5, 5, channels).mean(axis=2, dtype=np.float64)
    return np.asarray(means.reshape(n, -1))


def observer(test: Epochs, chain: Conditioning, arrays: dict[str, Any], shown: Sequence[Concept]) -> Floats:
    """Scores (n, items) of an observer who knows what no decoder can: every true response, and the noise's parts.

    The linear discriminant with the true means and the true covariance: each part of the noise is stationary, so its
    covariance is that over time times that over channels, measured on a session that holds that part alone; their sum,
    and what the gain of a trial does to the mean response, is the covariance of a trial. The best that a linear decoder
    of these 20 ms means could do, but for the blinks, which are not Gaussian.
    """

    def windows(levels: Levels, seconds: float) -> Epochs:
        return cut(session(NOISE, seconds, shown, levels), shown, chain, arrays)

    quiet = windows(only("evoked", "common", gain_spread=0.0, latency_spread=0.0), len(shown) + 4.0)
    means = pooled(quiet.x[[int(np.flatnonzero(quiet.y == item)[0]) for item in range(len(shown))]])
    centre = means.mean(axis=0)
    covariance = Levels().gain_spread ** 2 * np.outer(centre, centre)
    for part in ("background", "alpha", "blink", "line", "sensor"):
        x = pooled(windows(only(part), 400.0).x).reshape(-1, quiet.x.shape[1] // 5, quiet.x.shape[2])
        over_time = np.einsum("ntc,nuc->tu", x, x, optimize=True) / (x.shape[0] * x.shape[2])
        over_channels = np.einsum("ntc,ntd->cd", x, x, optimize=True) / (x.shape[0] * x.shape[1])
        covariance += np.kron(over_time, over_channels) / max(np.trace(over_time) / len(over_time), 1e-30)
    # after the average reference one direction over channels is empty
    covariance += 1e-4 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    filters = np.linalg.solve(covariance, means.T)
    return np.asarray(pooled(test.x) @ filters - 0.5 * np.einsum("kd,dk->k", means, filters), np.float32)


def build(
    out: Path, *, passes: int = 14, seed: int = 0, length: float = LENGTH, say: Any = typer.echo
) -> dict[str, Any]:
    """Simulate, train, calibrate, test and export.

    Parameters
    ----------
    out : Path
        The zip file, or a folder; replaced where it exists.
    passes : int
        Over the training trials.
    seed : int
        Of the encoder's weights and the order of the trials.
    length : float
        Seconds of each session.
    say : callable
        Takes a line of progress.

    Returns
    -------
    dict
        The metrics, as they stand in the manifest.
    """
    torch.set_num_threads(1)
    shown, others = gallery(), unseen()
    targets = embeddings(shown).astype(np.float32)
    say(f"simulating {len(TRAINING)} training sessions of {length:.0f} s")
    recording = session(TRAINING[0], length)
    chain, arrays = fit_conditioning(
        CHAIN, cut(recording, shown, CHAIN, {}), alignment=False, shrinkage=0.0, standardise=True
    )
    first = cut(recording, shown, chain, arrays)
    raw, raw_starts = _raw_piece(recording, first)
    contract = contract_of(recording.info)
    rest = [cut(session(number, length), shown, chain, arrays) for number in TRAINING[1:]]
    x = np.concatenate([part.x for part in (first, *rest)])
    y = np.concatenate([part.y for part in (first, *rest)])
    say(f"training on {len(y)} trials")
    model = train(x, y, targets, passes=passes, seed=seed, say=say)

    known = cosines(model, cut(session(CALIBRATION, length), shown, chain, arrays).x, targets)
    unknown = cosines(model, cut(session(CALIBRATION_UNSEEN, length, others), others, chain, arrays).x, targets)
    threshold = calibrate_threshold(known.max(axis=1), unknown.max(axis=1), FALSE_ACCEPT).threshold
    test = cut(session(TEST, length), shown, chain, arrays)
    strange = cut(session(TEST_UNSEEN, length, others), others, chain, arrays)
    metrics = _metrics(model, targets, threshold, test, strange)
    ideal = observer(test, chain, arrays, shown)
    metrics["observer"] = {"top1": round(top(ideal, test.y, 1), 4), "top5": round(top(ideal, test.y, 5), 4)}
    for name, value in metrics.items():
        say(f"{name}: {value}")
    report = _export(
        model, out, contract, chain, arrays, first, raw, raw_starts, threshold, metrics, seed, passes, length
    )
    say(
        f"{report.bundle}: {out.stat().st_size / 1e6:.2f} MB, {report.parameters} parameters, id {report.bundle_id[:9]}"
    )
    return metrics


def _metrics(model: ConceptEncoder, targets: Floats, threshold: float, test: Epochs, strange: Epochs) -> dict[str, Any]:
    scores = cosines(model, test.x, targets)
    best = scores.max(axis=1)
    right = scores.argmax(axis=1) == test.y
    # things that were never trained on: not in the gallery at all, and then added to it
    away = cosines(model, strange.x, targets).max(axis=1)
    wider = np.concatenate([targets, embeddings(unseen()).astype(np.float32)])
    added = cosines(model, strange.x, wider)
    return {
        "simulated": True,
        "test_trials": len(test),
        "items": len(targets),
        "top1": round(top(scores, test.y, 1), 4),
        "top5": round(top(scores, test.y, 5), 4),
        "chance_top1": round(1 / len(targets), 5),
        "chance_top5": round(5 / len(targets), 5),
        "none_of_these": {
            "threshold": round(threshold, 4),
            "declared_false_accept": FALSE_ACCEPT,
            "share_of_right_answers": round(float((best[right] < threshold).mean()), 4),
            "share_of_wrong_answers": round(float((best[~right] < threshold).mean()), 4),
            "share_of_things_not_in_the_gallery": round(float((away < threshold).mean()), 4),
        },
        "never_trained_on": {
            "trials": len(strange),
            "gallery": len(wider),
            "top1": round(top(added, strange.y + len(targets), 1), 4),
            "top5": round(top(added, strange.y + len(targets), 5), 4),
        },
    }


def _raw_piece(recording: Recording, windows: Epochs) -> tuple[Floats, tuple[int, ...]]:
    """The start of the recording up to the end of its second window, and where the two windows begin."""
    starts = tuple(int(start) for start in windows.start[:2])
    chunks = [batch.chunk.samples for batch in recording.batches[:20] if batch.chunk is not None]
    return np.concatenate(chunks)[: starts[-1] + windows.x.shape[1]], starts


def _export(
    model: ConceptEncoder,
    out: Path,
    contract: Contract,
    chain: Conditioning,
    arrays: dict[str, Any],
    golden: Epochs,
    raw: Floats,
    raw_starts: tuple[int, ...],
    threshold: float,
    metrics: dict[str, Any],
    seed: int,
    passes: int,
    length: float,
) -> Any:
    items = [{"name": item.name, "caption": item.caption, "emoji": item.emoji} for item in gallery()]
    head = RetrieveHead(output="embedding", items="items.json", embeddings="items.npy", k=5, threshold=threshold)
    return export_bundle(
        model,
        out=out,
        name="demo: a simulated subject looks at things",
        contract=contract,
        conditioning=chain,
        arrays=arrays,
        windows=[WINDOW],
        heads=[head],
        outputs=["embedding"],
        real_windows=golden.x[:64],
        raw=raw,
        raw_starts=raw_starts,
        files={
            "items.json": msgspec.json.format(msgspec.json.encode(items), indent=1),
            "items.npy": embeddings(gallery()).astype(np.float32),
        },
        metrics=metrics,
        provenance={
            "script": "rtdecode_models.demo",
            "data": "simulated; nothing was measured",
            "subject": SUBJECT,
            "sessions": {
                "training": TRAINING,
                "calibration": (CALIBRATION, CALIBRATION_UNSEEN),
                "test": (TEST, TEST_UNSEEN),
            },
            "seconds": length,
            "levels_V": asdict(Levels()),
            "seed": seed,
            "passes": passes,
        },
        overwrite=True,
    )


def main(
    out: Annotated[Path, typer.Option(help="The bundle; replaced where it exists.")] = Path("rtdecode/demo/bundle.zip"),
    passes: Annotated[int, typer.Option(help="Passes over the training trials.")] = 14,
    seed: Annotated[int, typer.Option(help="Of the encoder.")] = 0,
) -> None:
    """Build the demo's bundle.

    Example: python -m rtdecode_models.demo --out rtdecode/demo/bundle.zip
    """
    build(out, passes=passes, seed=seed)


if __name__ == "__main__":
    typer.run(main)
