"""The one workload of the benchmarks that stand beside peers, in two sizes, and what it must give.

An LSL stream on the loopback, a causal Butterworth band-pass from 0.5 to 40 Hz, a sliding window, an encoder of NICE's
shape (untrained, exported like any other), and the best 5 of a gallery of 200 by cosine. The stream comes in chunks of
which a hop is a whole number, so that a window's newest sample is the last of a chunk for every system.

Samples are sent in microvolts or femtotesla. rtdecode converts to SI units; the peers take what comes, and their copy
of the encoder has the factor in its first weights. `Expected` computes with scipy and onnxruntime what a window must
give.
"""

import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.signal import butter, sosfilt

LOW, HIGH, ORDER = 0.5, 40.0, 4
WIDTH, TOP = 768, 5
#: Seconds after which the signal begins again.
PERIOD_S = 10


@dataclass(frozen=True, slots=True)
class Size:
    """How large the workload is.

    Parameters
    ----------
    name : str
        What it is called in results.
    channels : int
        How many there are.
    sfreq : float
        Samples of each in a second.
    length, hop : float
        Of the sliding window, in seconds.
    chunk : int
        Samples that are sent at once.
    kind, unit, si, factor
        Channel type, unit of the stream, SI unit, and one of the former in the latter.
    items : int
        In the gallery.
    form : str
        Of the encoder, for all systems alike. ``shape``: a plain export of NICE's layers, pooled once the channels are
        one, so that a window can be encoded whole within a hop. ``published``: a plain export of the network as
        published, that pools each channel before. ``folded``: the published one, made two convolutions of before it is
        exported, as the zoo does it: the fastest form that is known.
    """

    name: str
    channels: int
    sfreq: float
    length: float
    hop: float
    chunk: int
    kind: str = "eeg"
    unit: str = "uV"
    si: str = "V"
    factor: float = 1e-6
    items: int = 200
    form: str = "shape"

    @property
    def n_times(self) -> int:
        """Samples in a window."""
        return round(self.length * self.sfreq)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(f"{self.kind.upper()}{n:04d}" for n in range(self.channels))


SIZES = {
    "eeg64": Size("eeg64", 64, 250.0, 1.0, 0.1, 5),
    "meg306": Size("meg306", 306, 1000.0, 1.0, 0.05, 10, "mag", "fT", "T", 1e-15),
}
SIZES |= {
    f"{name}-{form}": replace(size, name=f"{name}-{form}", form=form)
    for name, size in SIZES.items()
    for form in ("folded", "published")
}


def signal(size: Size) -> NDArray[np.float32]:
    """One period of the stream, in its own unit: noise of about 20, the same each time, with slow waves in it.

    Parameters
    ----------
    size : Size
        How large.

    Returns
    -------
    ndarray of float32, shape (samples, channels)
    """
    rng = np.random.default_rng(7)
    n = round(PERIOD_S * size.sfreq)
    time = np.arange(n)[:, np.newaxis] / size.sfreq
    waves = rng.integers(10, 300, size.channels) / PERIOD_S
    noise = 20 * rng.standard_normal((n, size.channels))
    return np.asarray(noise + 20 * np.sin(2 * np.pi * (waves * time + rng.random(size.channels))), np.float32)


def gallery(items: int) -> NDArray[np.float32]:
    """Rows of unit length, shape (items, `WIDTH`)."""
    rows = np.random.default_rng(8).standard_normal((items, WIDTH), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def name_of(item: int) -> str:
    """What an item of the gallery is called."""
    return f"item {item:07d}"


def make(size: Size, folder: Path) -> Path:
    """The workload's files, in a folder that is kept: its name holds a hash of what they depend on.

    Returns
    -------
    Path
        The folder: ``bundle/`` and ``incremental/`` for rtdecode; ``encoder.onnx``, ``gallery.npy`` and ``signal.npy``
        for all else.
    """
    source = Path(__file__).read_bytes() + json.dumps(asdict(size)).encode()
    place = folder / f"{size.name}-{hashlib.sha256(source).hexdigest()[:12]}"
    if (place / "complete").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "signal.npy", signal(size))
    np.save(place / "gallery.npy", gallery(size.items))
    make_bundle(size, place / "bundle")
    command = [sys.executable, "-m", "rtdecode", "bundle", "compile", str(place / "bundle")]
    command += ["--out", str(place / "incremental")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (place / "encoder.onnx").write_bytes(_for_the_streams_unit(place / "bundle", size.factor))
    (place / "complete").touch()
    return place


def make_bundle(size: Size, path: Path) -> None:
    """Export the encoder, untrained, with its conditioning, window and gallery."""
    from rtdecode.encode.bundle import items_json
    from rtdecode.encode.manifest import Contract, ContractChannel, GalleryItem, RetrieveHead
    from rtdecode.stream.steps import Conditioning, Filter
    from rtdecode.stream.window import Sliding
    from rtdecode_export.bundle import export_bundle

    noise = np.random.default_rng(9).standard_normal((2, size.n_times, size.channels)) * 15 * size.factor
    export_bundle(
        _encoder(size),
        out=path,
        name=f"workload-{size.name}",
        contract=Contract(
            channels=tuple(ContractChannel(name=label, type=size.kind, unit=size.si) for label in size.labels),
            sfreq=size.sfreq,
        ),
        conditioning=Conditioning(stream=(Filter(low=LOW, high=HIGH, order=ORDER),)),
        arrays={},
        windows=[Sliding(length=size.length, hop=size.hop)],
        heads=[RetrieveHead(output="embedding", items="items.json", embeddings="rows.npy", k=TOP)],
        outputs=["embedding"],
        real_windows=noise.astype(np.float32),
        files={
            "items.json": items_json([GalleryItem(name=name_of(n)) for n in range(size.items)]),
            "rows.npy": gallery(size.items),
        },
        provenance={"trained": False},
        real=False,
        overwrite=True,
    )


def _encoder(size: Size) -> Any:
    """The network with weights that keep the variance from layer to layer, for windows in SI units."""
    import torch
    from torch import Tensor, nn

    from rtdecode_models.data.shape import Shape
    from rtdecode_models.systems.nice import Nice, NiceConfig
    from rtdecode_models.systems.tsconv import TemporalSpatial

    class PooledLast(TemporalSpatial):
        """The same layers, with the means behind the convolution over channels: of 40 rows, not 40 for each channel."""

        def forward(self, image: Tensor) -> Tensor:
            """As `TemporalSpatial`."""
            hidden = self.activation(self.norm(self.temporal(image)))
            hidden = self.pool(self.activation(self.spatial_norm(self.spatial(hidden))))
            mixed: Tensor = self.mix(hidden)
            return mixed.squeeze(2).transpose(1, 2).flatten(1)

    torch.manual_seed(0)
    shape = Shape(size.n_times, size.channels, size.sfreq, targets={"image": (WIDTH,)})
    network = Nice(NiceConfig(), shape)
    if size.form == "shape":
        network.conv = PooledLast(size.channels, size.n_times)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    with torch.no_grad():
        # Filtered, the signal is of about 15 units; the means over 51 samples take most of what is left.
        network.conv.temporal.weight.mul_(0.3 / size.factor)
    return network.eval().deploy() if size.form == "folded" else network.eval()


def _for_the_streams_unit(bundle: Path, factor: float) -> bytes:
    """The bundle's encoder for windows in the stream's unit: the factor goes into the first convolution's weights."""
    from rtdecode.encode.bundle import Bundle

    model = copy.deepcopy(onnx.load_model_from_string(Bundle.open(bundle).onnx_bytes()))
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(one for one in model.graph.initializer if one.name == first.input[1])
    scaled = numpy_helper.to_array(weight).astype(np.float64) * factor
    weight.CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), weight.name))
    return bytes(model.SerializeToString())


class Expected:
    """What windows must give: the whole stream filtered at once, each window encoded whole.

    Parameters
    ----------
    size : Size
        How large.
    place : Path
        What `make` returned.
    """

    def __init__(self, size: Size, place: Path) -> None:
        self._size = size
        self._period = np.load(place / "signal.npy")
        self._rows = np.load(place / "gallery.npy")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(place / "encoder.onnx"), options, ["CPUExecutionProvider"])
        self._filtered = np.empty((0, size.channels), np.float32)
        self._sos = butter(ORDER, (LOW, HIGH), "bandpass", fs=size.sfreq, output="sos")
        self._state = np.zeros((len(self._sos), 2, size.channels))
        self._known: dict[int, NDArray[np.float32]] = {}

    def scores(self, newest: int) -> NDArray[np.float32]:
        """Cosines with all items of the window whose newest sample has this index, shape (items,)."""
        if newest not in self._known:
            while len(self._filtered) <= newest:
                block = faded(self._period, len(self._filtered), self._size.sfreq)
                out, self._state = sosfilt(self._sos, block, axis=0, zi=self._state)
                self._filtered = np.concatenate([self._filtered, out.astype(np.float32)])
            window = self._filtered[newest + 1 - self._size.n_times : newest + 1]
            embedding = self._session.run(None, {self._session.get_inputs()[0].name: window[np.newaxis]})[0][0]
            self._known[newest] = self._rows @ (embedding / np.linalg.norm(embedding))
        return self._known[newest]

    def agrees(self, newest: int, items: Sequence[int], scores: Sequence[float]) -> tuple[bool, float]:
        """Whether these are the best, in order but for ties within 1e-4; and the largest difference of a score."""
        expected = self.scores(newest)
        best = np.sort(expected)[::-1][: len(items)]
        off = float(np.abs(expected[list(items)] - np.asarray(scores)).max())
        same = len(set(items)) == len(items) and bool(np.all(np.abs(expected[list(items)] - best) < 1e-4))
        return same, off


def faded(period: NDArray[np.float32], index: int, sfreq: float) -> NDArray[np.float32]:
    """The period that begins at a sample's index; the very first begins with silence: no filter has to settle."""
    if index > 0:
        return period
    ramp = np.clip(np.arange(len(period)) / sfreq / 0.1 - 1, 0, 1).astype(np.float32)
    return period * ramp[:, np.newaxis]


def write_spec(path: Path, size: Size, place: Path, stream: str, out: Path, more: Mapping[str, Any]) -> Path:
    """What a peer's program needs to know, as JSON."""
    spec = {
        "stream": stream,
        "channels": size.channels,
        "sfreq": size.sfreq,
        "length": size.length,
        "hop": size.hop,
        "low": LOW,
        "high": HIGH,
        "order": ORDER,
        "top": TOP,
        "encoder": str(place / "encoder.onnx"),
        "gallery": str(place / "gallery.npy"),
        "out": str(out),
        **more,
    }
    path.write_text(json.dumps(spec))
    return path
