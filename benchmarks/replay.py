"""How fast a recording is replayed: multiples of real time, and where the time goes.

    python benchmarks/replay.py [--recording S001R14.edf --bundle fists-feet.zip] [--hop 0.25] [--runs 5] [--json FILE]

Without a recording and a bundle it makes both: 125 s of 64 channels of noise at 160 Hz, and an untrained ensemble of
five EEG-SimpleConvs behind the conditioning of the recipe. Prints JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import accounts
import figures

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recording", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--hop", type=float, default=0.25, help="a window every so many seconds")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a smoke run: once")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    machine = accounts.machine()
    runs_wanted = 1 if arguments.quick else arguments.runs
    if (arguments.recording is None) != (arguments.bundle is None):
        parser.error("give both --recording and --bundle, or neither")
    with tempfile.TemporaryDirectory() as folder:
        recording, bundle = arguments.recording, arguments.bundle
        if recording is None:
            recording, bundle = make_recording(Path(folder) / "noise.edf"), make_bundle(Path(folder) / "untrained.zip")
        runs = [replay(recording, bundle, arguments.hop) for _ in range(runs_wanted)]
    speeds = [run["times_real_time"] for run in runs]
    figures.save(
        arguments.json,
        {
            "benchmark": "replay",
            "recording": runs[0]["recording"] if arguments.recording else "simulated",
            "bundle": runs[0]["bundle"] if arguments.recording else "untrained",
            "simulated": arguments.recording is None,
            "hop_s": arguments.hop,
            "windows": runs[0]["windows"],
            "statuses": runs[0]["statuses"],
            "times_real_time": {
                "median": statistics.median(speeds),
                "least": min(speeds),
                "most": max(speeds),
            },
            "machine": machine,
        },
    )


def replay(recording: Path, bundle: Path, hop: float) -> dict[str, Any]:
    """One whole run of the verb, in a process of its own; its summary."""
    verb = ["replay", str(recording), "--bundle", str(bundle), "--hop", str(hop), "--json"]
    done = subprocess.run([sys.executable, "-m", "rtdecode", *verb], capture_output=True, text=True, check=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def make_recording(path: Path) -> Path:
    import numpy as np
    from edfio import Edf, EdfSignal

    rng = np.random.default_rng(0)
    signals = [
        EdfSignal(20 * rng.standard_normal(125 * 160), 160, label=f"E{n}", physical_dimension="uV") for n in range(64)
    ]
    Edf(signals).write(path)
    return path


def make_bundle(path: Path) -> Path:
    import numpy as np
    import torch

    from rtdecode.encode.manifest import ClassifyHead, Contract, ContractChannel
    from rtdecode.stream.steps import Conditioning, Filter, Matrix, Resample
    from rtdecode.stream.window import Sliding
    from rtdecode_export.bundle import export_bundle
    from rtdecode_models.data.shape import Shape
    from rtdecode_models.systems.ensemble import Ensemble
    from rtdecode_models.systems.simpleconv import EEGSimpleConv, SimpleConvConfig

    torch.manual_seed(0)
    config = SimpleConvConfig(width=32, n_blocks=1, kernel=9)
    members = [EEGSimpleConv(config, Shape(240, 64, 80.0, classes={"label": 2})) for _ in range(5)]
    steps = (Filter(low=7.0, high=30.0), Resample(sfreq=80.0), Matrix(array="mix.npy", kind="euclidean_alignment"))
    rng = np.random.default_rng(0)
    export_bundle(
        Ensemble(members).deploy(),
        out=path,
        name="untrained",
        contract=Contract(
            channels=tuple(ContractChannel(name=f"E{n}", type="eeg", unit="V") for n in range(64)), sfreq=160.0
        ),
        conditioning=Conditioning(stream=steps),
        arrays={"mix.npy": 1e5 * np.eye(64)},
        windows=[Sliding(length=3.0, hop=0.25)],
        heads=[ClassifyHead(output="logits", labels=("fists", "feet"))],
        outputs=["logits"],
        real_windows=rng.standard_normal((4, 240, 64)).astype(np.float32),
        raw=None,
        metrics={},
        provenance={"trained": False},
    )
    return path


if __name__ == "__main__":
    main()
