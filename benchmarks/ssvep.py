"""CCA on the SSVEP exoskeleton recordings: 13, 17 or 21 Hz, decoded live over LSL and in replay, nothing trained.

Each recording is served at its own rate over a real LSL outlet, with its trials as markers, by ``rtdecode stream`` in a
process of its own, to ``rtdecode run`` with the bundle of the zoo's CCA; what the daemon publishes is scored. Then
every recording is replayed at full speed by ``rtdecode replay``.

    python benchmarks/ssvep.py ../shared/data/ssvep_exo [--live none|first|all] [--json]

Live takes as long as the recordings: about six minutes, all at once.
"""

import argparse
import json
import math
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mne
import numpy as np
import torch

from rtdecode import hostclock
from rtdecode.demo.staging import LSL_API
from rtdecode.wire.messages import Window
from rtdecode.wire.subscriber import Subscriber
from rtdecode_export.bundle import export_bundle
from rtdecode_models.data.recordings import epochs, read_recording
from rtdecode_models.zoo.baselines import ENTRIES, FLICKER, TRIAL

COMMAND = [sys.executable, "-m", "rtdecode"]
#: Codes of the files' events (README of the recordings).
EVENTS = {1: "rest", 2: "13 Hz", 3: "21 Hz", 4: "17 Hz"}
CONFIG = """\
[session]
name = "ssvep"
[source]
kind = "lsl"
name = {name}
timeout_s = 120.0
end_when_lost = true
markers = [{{ name = "{cues}" }}]
[bus]
dir = {folder}
[pipelines.cca]
bundle = {bundle}
publish = {publish}
budget_ms = {budget_ms}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds subject01 and subject12")
    parser.add_argument("--live", choices=("none", "first", "all"), default="all", help="which recordings of each")
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="rtdecode-ssvep-"))
    try:
        recordings = with_events(arguments.data, folder)
        bundle = make_bundle(recordings, folder / "cca.zip")
        count = {"none": 0, "first": 1, "all": None}[arguments.live]
        chosen = [path for files in recordings.values() for path in files[:count]]
        report: dict[str, Any] = {"replay": {}, "live": {}}
        for subject, files in recordings.items():
            report["replay"][subject] = [replayed(path, bundle) for path in files]
        say("replay", report["replay"])
        if chosen:
            with ThreadPoolExecutor(len(chosen)) as pool:
                decoded = dict(zip(chosen, pool.map(lambda path: live(path, bundle), chosen), strict=True))
            for subject, files in recordings.items():
                report["live"][subject] = [decoded[path] for path in files if path in decoded]
            say("live over LSL, in real time", report["live"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        print(json.dumps(report))


def with_events(data: Path, out: Path, most: int | None = None) -> dict[str, list[Path]]:
    """Subject -> its recordings (the first `most`), with the events that lie beside each as annotations in the file."""
    found: dict[str, list[Path]] = {}
    for path in sorted(data.glob("*/*_raw.fif")):
        if most is not None and len(found.get(path.parent.name, ())) == most:
            continue
        raw = mne.io.read_raw_fif(path, verbose="error")
        events = mne.read_events(path.with_name(path.name.replace("_raw.fif", "-eve.fif")), verbose="error")
        onsets = (events[:, 0] - raw.first_samp) / raw.info["sfreq"]
        raw.set_annotations(mne.Annotations(onsets, 0.0, [EVENTS[code] for code in events[:, 2]]))
        target = out / f"{path.parent.name}-{len(found.get(path.parent.name, ())) + 1}_raw.fif"
        raw.save(target, verbose="error")
        found.setdefault(path.parent.name, []).append(target)
    return found


def make_bundle(recordings: dict[str, list[Path]], out: Path) -> Path:
    """The zoo's CCA as a bundle, checked on the windows of the first recording."""
    (entry,) = (entry for entry in ENTRIES if entry.name == "cca")
    first = next(iter(recordings.values()))[0]
    recording = read_recording(first.parent, first.name)
    heads, files = entry.heads()
    labels = {label: (label,) for label in FLICKER}
    cut = epochs([recording], entry.contract, entry.conditioning, {}, [TRIAL], labels)
    starts = tuple(int(start) for start in cut.start[:2])
    chunks = [batch.chunk.samples for batch in recording.batches if batch.chunk is not None]
    export_bundle(
        entry.build().deploy(),
        out=out,
        name="cca-ssvep",
        contract=entry.contract,
        conditioning=entry.conditioning,
        arrays={},
        windows=[entry.window],
        heads=heads,
        outputs=["logits"],
        real_windows=cut.x,
        raw=np.concatenate(chunks)[: starts[-1] + cut.x.shape[1] + 1],
        raw_starts=starts,
        files=files,
        provenance={"trained": "nothing"},
    )
    return out


def replayed(recording: Path, bundle: Path) -> dict[str, Any]:
    """Score of ``rtdecode replay``."""
    lines = recording.with_suffix(".replay.jsonl")
    command = [*COMMAND, "replay", str(recording), "--bundle", str(bundle), "--out", str(lines), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    messages = [json.loads(line) for line in lines.read_bytes().splitlines()]
    said = [
        (each["marker"]["value"], (each["label"] or {}).get("best")) for each in messages if each["type"] == "window"
    ]
    return tally(recording, said)


def live(recording: Path, bundle: Path) -> dict[str, Any]:
    """Score of what a daemon published while the recording was served over LSL, and its latency."""
    name = f"ssvep-{secrets.token_hex(4)}"
    folder = Path(tempfile.mkdtemp(prefix="rtdecode-live-"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    values = {"name": name, "folder": str(folder), "bundle": str(bundle), "publish": endpoint}
    config = folder / "session.toml"
    config.write_text(
        CONFIG.format(cues=f"{name}-cues", budget_ms=25.0, **{key: json.dumps(value) for key, value in values.items()})
    )
    api = folder / "lsl_api.cfg"
    api.write_text(LSL_API.format(session=name))
    environment = os.environ | {"LSLAPICFG": str(api), "OMP_NUM_THREADS": "1"}
    served = [*COMMAND, "stream", str(recording), "--name", name, "--markers", f"{name}-cues", "--wait", "120"]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen([*COMMAND, "run", str(config)], env=environment, stdout=log, stderr=log)
        sender = subprocess.Popen(served, env=environment, stdout=log, stderr=log)
        try:
            windows = listen(endpoint, daemon)
            if daemon.wait(30) or sender.wait(30):
                raise RuntimeError(f"{recording.name}: the session failed: {(folder / 'log').read_text()[-1000:]}")
        finally:
            for process in (sender, daemon):
                if process.poll() is None:
                    process.terminate()
                    process.wait(30)
            shutil.rmtree(folder, ignore_errors=True)
    took = [
        1e3 * (each.ledger.published - each.ledger.arrived)
        for each in windows
        if each.ledger.published is not None and each.ledger.arrived is not None
    ]
    said = [(each.marker.value, each.label.best if each.label else None) for each in windows if each.marker]
    met = sum(each.ledger.met is True for each in windows)
    return tally(recording, said) | {
        "in_budget": met,
        "p50_ms": float(np.percentile(took, 50)),
        "worst_ms": max(took),
    }


def listen(endpoint: str, daemon: "subprocess.Popen[bytes]") -> list[Window]:
    """Every window that is published until the daemon has ended, as it does when the stream is gone."""
    windows: list[Window] = []
    deadline = hostclock.now() + 900
    with Subscriber(endpoint, timeout=1.0) as subscriber:
        while hostclock.now() < deadline:
            ended = daemon.poll() is not None
            messages = [received.message for received in subscriber]
            windows += [message for message in messages if isinstance(message, Window) and not message.retained]
            if ended:
                return windows
    raise RuntimeError("the session did not end within 900 s")


def tally(recording: Path, said: list[tuple[str, str | None]]) -> dict[str, Any]:
    return {
        "recording": recording.name,
        "trials": len(said),
        "right": sum(truth == best for truth, best in said),
        "undecoded": sum(best is None for _, best in said),
    }


def say(title: str, by_subject: dict[str, list[dict[str, Any]]]) -> None:
    print(f"{title}: three frequencies, chance 1/3")
    accuracies = []
    for subject, results in by_subject.items():
        right, trials = sum(each["right"] for each in results), sum(each["trials"] for each in results)
        low, high = wilson(right, trials)
        accuracies.append(right / trials)
        parts = ", ".join(f"{each['right']} of {each['trials']}" for each in results)
        print(f"  {subject}  {right} of {trials} = {right / trials:.3f}  [{low:.2f}, {high:.2f}]  ({parts})")
        for each in results:
            if "p50_ms" in each:
                print(
                    f"    {each['recording']}: {each['in_budget']} of {each['trials']} inside 25 ms, "
                    f"p50 {each['p50_ms']:.1f} ms, worst {each['worst_ms']:.1f} ms, {each['undecoded']} undecoded"
                )
    print(f"  mean over subjects {np.mean(accuracies):.3f}\n")


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion, 95 %."""
    z = 1.959964
    share, extent = right / n, z * z / n
    middle = (share + extent / 2) / (1 + extent)
    half = z / (1 + extent) * math.sqrt(share * (1 - share) / n + extent / (4 * n))
    return middle - half, middle + half


if __name__ == "__main__":
    main()
