"""Train the denoiser on simulated EEG made dirty, and score it on signals and artifacts that it never saw.

    python benchmarks/denoise.py --minutes 5

Everything is simulated (`rtdecode_models.systems.artifacts`); ratios are of power, in dB.
"""

import argparse
import time

import numpy as np
import torch

from rtdecode_models.systems.artifacts import artifacts, clean_eeg, contaminate, correlation
from rtdecode_models.systems.denoiser import Denoiser, build
from rtdecode_models.systems.shape import Shape

SFREQ, N_TIMES = 128.0, 256
TRAIN, TEST, BATCH = 20_000, 2_000, 128
LEARNING_RATE = 1e-3
RATIOS = (-7.0, -4.0, -1.0, 2.0, 5.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to train")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(1000 + arguments.seed)
    denoiser = build({}, Shape(N_TIMES, 1, SFREQ))
    steps = train(denoiser, clean_eeg(rng, TRAIN, N_TIMES, SFREQ), arguments.minutes * 60)
    clean, dirt = clean_eeg(rng, TEST, N_TIMES, SFREQ), artifacts(rng, TEST, N_TIMES, SFREQ)
    print(f"seed {arguments.seed}, {steps} steps of {BATCH}; {TEST} simulated test signals")
    print("| dB | correlation before | after | 5th percentile after |\n|---|---|---|---|")
    for ratio in RATIOS:
        dirty = contaminate(clean, dirt, ratio)
        with torch.no_grad():
            denoised = denoiser.eval().denoise(torch.from_numpy(dirty)[:, :, None])[:, :, 0].numpy()
        before, after = correlation(dirty, clean), correlation(denoised, clean)
        print(f"| {ratio:g} | {before.mean():.3f} | {after.mean():.3f} | {np.quantile(after, 0.05):.3f} |", flush=True)


def train(denoiser: Denoiser, clean: np.ndarray, seconds: float) -> int:
    """Fit by Adam on a one-cycle of learning rates that is as long as the time; returns the number of steps."""
    windows = torch.from_numpy(clean)[:, :, None]
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=LEARNING_RATE)
    denoiser.train()
    started, steps = time.monotonic(), 0
    while (spent := time.monotonic() - started) < seconds:
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, 20 * spent / seconds + 0.05, 1.05 - spent / seconds)
        loss = denoiser(windows[torch.randint(len(windows), (BATCH,))])["loss_denoising"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
        if steps % 200 == 0:
            print(f"{spent:5.0f} s, step {steps}, loss {loss.item():.3f}", flush=True)
    return steps


if __name__ == "__main__":
    main()
