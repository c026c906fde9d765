"""Real MEG recordings through brain modules that were built for their contracts; the weights are at random."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rtdecode.decoder import Decoder
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.engines import make_engine
from rtdecode.encode.golden import check_golden
from rtdecode.encode.manifest import EmbeddingHead
from rtdecode.offline import replay
from rtdecode.result import Result, Status
from rtdecode.sources.recording import RecordingSource
from rtdecode.sources.trigger import TriggerRule
from rtdecode.stream.condition import Conditioner
from rtdecode.stream.fit import robust_statistics
from rtdecode.stream.steps import Baseline, Clamp, Conditioning, Pick, Resample, Scale
from rtdecode.stream.window import Locked, Sliding, WindowSpec
from rtdecode_export.bundle import export_bundle
from rtdecode_export.onnx import run_torch
from rtdecode_models.data.fitting import MEDIAN, RANGE
from rtdecode_models.data.positions import positions_of
from rtdecode_models.data.recordings import Recording, contract_of, cut
from rtdecode_models.data.shape import Shape
from rtdecode_models.systems.registry import build

SFREQ = 120.0
#: A smaller trunk than the published one, to save time; the sensors' end has the published width.
OPTIONS = {"width": 64, "features": 256}


def read(path: Path, triggers: Sequence[TriggerRule] = ()) -> Recording:
    with RecordingSource(path, triggers=triggers) as source:
        return Recording(path.name, "", source.info, tuple(iter(lambda: source.read(1.0), None)))


def decoded(
    path: Path, folder: Path, window: WindowSpec, baseline: Baseline | None, triggers: Sequence[TriggerRule] = ()
) -> tuple[Recording, list[Result], NDArray[np.float32]]:
    """Export a brain module for a recording's own contract, replay the recording through the bundle.

    Returns
    -------
    tuple
        The recording, every result, and what PyTorch makes of the same windows.
    """
    recording = read(path, triggers)
    contract = contract_of(recording.info)
    sensors = [channel for channel in recording.info.channels if channel.type in ("mag", "grad")]
    raw = Conditioning(
        stream=(Pick(channels=tuple(channel.name for channel in sensors)), Resample(sfreq=SFREQ)),
        window=() if baseline is None else (baseline,),
    )
    unscaled = cut(recording, contract, raw, {}, [window])
    windows = np.stack([result.outputs["window"] for result in unscaled if result.status == Status.OK])
    center, scale = robust_statistics(windows)
    arrays = {MEDIAN: center, RANGE: scale}
    chain = Conditioning(
        stream=(*raw.stream, Scale(center=MEDIAN, scale=RANGE, kind="robust")),
        window=(*raw.window, Clamp(limit=5.0)),
    )
    usable = [result for result in cut(recording, contract, chain, arrays, [window]) if result.status == Status.OK]
    real = np.stack([result.outputs["window"] for result in usable])

    conditioner = Conditioner(chain.stream, recording.info.channels, contract.sfreq, arrays)
    positions = positions_of(conditioner.channels)
    shape = Shape(real.shape[1], real.shape[2], conditioner.sfreq, targets={"image": (32,)}, positions=positions)
    torch.manual_seed(0)
    deployed = build("brain-module", OPTIONS, shape).deploy(0)
    out = folder / "untrained.zip"
    export_bundle(
        deployed,
        out=out,
        name="brain module (untrained)",
        contract=contract,
        conditioning=chain,
        arrays=arrays,
        windows=[window],
        heads=[EmbeddingHead(output="embedding"), EmbeddingHead(output="latent")],
        outputs=("embedding", "latent"),
        real_windows=real,
    )

    bundle = Bundle.open(out)
    engine = make_engine(bundle)
    check_golden(bundle, engine)
    with RecordingSource(path, triggers=triggers) as source:
        decoder = Decoder.from_bundle(bundle, source.info, engine)
        results = list(replay(source, decoder))
    engine.close()
    return recording, results, run_torch(deployed, real, ("embedding", "latent"))["embedding"]


def embeddings(results: Sequence[Result]) -> NDArray[np.float32]:
    return np.stack([result.outputs["embedding"] for result in results if result.status == Status.OK])


@pytest.mark.parametrize(
    ("name", "units", "sfreq", "least"),
    [
        ("SSS/sample_audvis_trunc_raw_sss.fif", {"mag": ("T", 102), "grad": ("T/m", 204)}, 300.3, 20),
        ("mne-python/test_ctf_comp_raw.fif", {"mag": ("T", 274)}, 480.0, 8),
    ],
)
def test_sliding_windows_of_whole_helmets(
    shared_data: Path, tmp_path: Path, name: str, units: dict[str, tuple[str, int]], sfreq: float, least: int
) -> None:
    window = Sliding(length=0.25, hop=0.025)
    recording, results, expected = decoded(shared_data / "meg" / name, tmp_path, window, None)
    for kind, (unit, n) in units.items():
        of_kind = [channel for channel in recording.info.channels if channel.type == kind]
        assert {channel.unit for channel in of_kind} == {unit}
        assert len(of_kind) == n
    assert recording.info.sfreq == pytest.approx(sfreq, abs=0.01)
    assert {result.status for result in results} == {Status.OK}
    assert len(results) >= least
    assert {(result.length, result.sfreq) for result in results} == {(30, SFREQ)}
    given = embeddings(results)
    assert np.isfinite(given).all()
    assert np.ptp(given, axis=0).min() > 0, "windows differ, and so do embeddings"
    np.testing.assert_allclose(given, expected, atol=1e-4)


def test_the_published_window_around_real_triggers(shared_data: Path, tmp_path: Path) -> None:
    window = Locked(tmin=-0.5, tmax=1.0 + 1 / SFREQ, markers=("*",))
    path = shared_data / "meg" / "misc" / "test_elekta_3ch_raw.fif"
    triggers = [TriggerRule(channel="STI101")]
    recording, results, expected = decoded(path, tmp_path, window, Baseline(tmin=-0.5, tmax=0.0), triggers)
    markers = [marker for batch in recording.batches for marker in batch.markers]
    assert {(c.type, c.unit) for c in recording.info.channels} == {("grad", "T/m"), ("mag", "T"), ("stim", "1")}
    assert recording.info.sfreq == 1000.0
    assert len(markers) > 10
    usable = [result for result in results if result.status == Status.OK]
    assert len(results) == len(markers), "every trigger has its result"
    length = 80.0  # seconds
    inside = [marker for marker in markers if 0.5 <= marker.stamp <= length - 1.0 - 1 / SFREQ]
    assert [result.marker for result in usable] == inside, "but for those too near the recording's ends"
    assert {(result.length, result.sfreq) for result in usable} == {(181, SFREQ)}
    given = embeddings(results)
    assert np.isfinite(given).all()
    np.testing.assert_allclose(given, expected, atol=1e-4)
