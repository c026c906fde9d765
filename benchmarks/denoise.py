"""Train the denoiser on simulated EEG made dirty, and score it on signals and artifacts that it never saw.

    python benchmarks/denoise.py --steps 1000 [--seeds 1 2 3] [--write]

Everything is simulated (`rtdecode_models.systems.artifacts`); ratios are of power, in dB. Beside the denoiser stand the
better of two baselines, the dirty signal as it is and band-passed, and an oracle that is told what nobody can know: the
power of the clean signal and of the artifact in every cell of time and frequency of the very signal that it cleans (the
ideal ratio mask; Wang and Chen, IEEE/ACM TASLP 26, 2018). What is optimal without being told has no closed form here.
``--write`` puts the shares of the oracle at 2 dB where `rtdecode zoo` reads them.
"""

import argparse
import time

import numpy as np
import torch
from known_answer import compared, write
from numpy.typing import NDArray
from scipy.signal import butter, istft, sosfiltfilt, stft

from rtdecode_models.data.shape import Shape
from rtdecode_models.data.trials import Trials
from rtdecode_models.provenance import code_commit
from rtdecode_models.systems.artifacts import artifacts, clean_eeg, contaminate, correlation
from rtdecode_models.systems.denoiser import Denoiser, build

Signals = NDArray[np.float32]

SFREQ, N_TIMES = 128.0, 256
TRAIN, TEST, BATCH = 20_000, 2_000, 128
LEARNING_RATE = 1e-3
RATIOS = (-7.0, -4.0, -1.0, 2.0, 5.0)
#: The ratio whose shares are kept, the band of the baseline in Hz, and the samples of an oracle's cell.
KEPT, BAND, CELL = 2.0, (1.0, 20.0), 32
METHODS = ("denoiser", "dirty", "band", "oracle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="how long to train")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--write", action="store_true", help="write the shares of the oracle")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    found = [one(seed, arguments.steps) for seed in arguments.seeds]
    if arguments.write:
        minutes = (time.perf_counter() - started) / 60
        write({"geometric-denoiser": entry(found, arguments.seeds, arguments.steps, minutes)})


def one(seed: int, steps: int) -> dict[float, dict[str, float]]:
    """Train and score with one seed: ratio -> method -> mean correlation with the clean signal."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(1000 + seed)
    denoiser = build({}, Shape(N_TIMES, 1, SFREQ))
    zeros = np.zeros(TRAIN, np.int64)
    train_x = clean_eeg(rng, TRAIN, N_TIMES, SFREQ)[:, :, None]
    denoiser.prepare(Trials(train_x, SFREQ, zeros, zeros, ("simulated",), ("simulated",)))
    train(denoiser, torch.from_numpy(train_x), steps)
    clean, dirt = clean_eeg(rng, TEST, N_TIMES, SFREQ), artifacts(rng, TEST, N_TIMES, SFREQ)
    print(f"seed {seed}, {steps} steps of {BATCH}; {TEST} simulated test signals")
    print(
        "| dB | correlation before | band-passed | after | 5th percentile after | oracle |\n|---|---|---|---|---|---|"
    )
    scores = {}
    for ratio in RATIOS:
        dirty = contaminate(clean, dirt, ratio)
        with torch.no_grad():
            denoised = denoiser.eval().denoise(torch.from_numpy(dirty)[:, :, None])[:, :, 0].numpy()
        answers = (denoised, dirty, band_passed(dirty), oracle(dirty, clean))
        each = {name: correlation(answer, clean) for name, answer in zip(METHODS, answers, strict=True)}
        mean = {name: float(values.mean()) for name, values in each.items()}
        scores[ratio] = mean
        print(
            f"| {ratio:g} | {mean['dirty']:.3f} | {mean['band']:.3f} | {mean['denoiser']:.3f} | "
            f"{np.quantile(each['denoiser'], 0.05):.3f} | {mean['oracle']:.3f} |",
            flush=True,
        )
    return scores


def band_passed(dirty: Signals) -> Signals:
    """The band in which most of EEG's power lies, without a shift in phase."""
    bands = butter(2, BAND, btype="bandpass", fs=SFREQ, output="sos")
    return np.asarray(sosfiltfilt(bands, dirty, axis=1), np.float32)


def oracle(dirty: Signals, clean: Signals) -> Signals:
    """Every cell of time and frequency scaled by the clean signal's share of the two powers in it."""
    cells = [stft(x, SFREQ, nperseg=CELL, noverlap=CELL // 2)[2] for x in (dirty, clean, dirty - clean)]
    power = np.abs(cells[1]) ** 2
    mask = power / np.maximum(power + np.abs(cells[2]) ** 2, 1e-30)
    return np.asarray(istft(mask * cells[0], SFREQ, nperseg=CELL, noverlap=CELL // 2)[1][:, :N_TIMES], np.float32)


def entry(
    found: list[dict[float, dict[str, float]]], seeds: list[int], steps: int, minutes: float
) -> dict[str, object]:
    """As ``benchmarks/known_answer.py`` keeps it."""
    at = {name: [each[KEPT][name] for each in found] for name in METHODS}
    rival = max(("dirty", "band"), key=lambda name: float(np.mean(at[name])))
    score = compared(at["denoiser"], at[rival], at["oracle"], 0.0)
    return {
        "experiment": "artifacts",
        "simulated": True,
        "data": {"ratio_db": KEPT, "train": TRAIN, "test": TEST, "steps": steps},
        "seeds": seeds,
        "metric": "correlation",
        "share": score["share"]["mean"],
        "baseline": {"method": rival, "band": list(BAND)} if rival == "band" else {"method": rival},
        "baseline_share": score["baseline_share"]["mean"],
        "ceiling_is": "ideal ratio mask: an oracle that is told each signal's own powers; no decoder can know them",
        "scores": {"correlation": score},
        "test_trials": TEST,
        "parameters": sum(p.numel() for p in build({}, Shape(N_TIMES, 1, SFREQ)).parameters()),
        "minutes": round(minutes, 2),
        "commit": code_commit(),
    }


def train(denoiser: Denoiser, windows: torch.Tensor, steps: int) -> None:
    """Fit by Adam, the learning rate rising over a twentieth of the steps and falling over the rest."""
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=LEARNING_RATE)
    denoiser.train()
    for step in range(steps):
        done = step / steps
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * min(20 * done + 0.05, 1.05 - done, 1.0)
        loss = denoiser(windows[torch.randint(len(windows), (BATCH,))])["loss_denoising"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 200 == 199:
            print(f"step {step + 1}, loss {loss.item():.3f}", flush=True)


if __name__ == "__main__":
    main()
