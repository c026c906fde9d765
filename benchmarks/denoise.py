"""Train the denoiser on simulated EEG made dirty, and score it on signals and artifacts that it never saw.

    python benchmarks/denoise.py --steps 1000

Everything is simulated (`rtdecode_models.systems.artifacts`); ratios are of power, in dB.
"""

import argparse

import numpy as np
import torch

from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.artifacts import artifacts, clean_eeg, contaminate, correlation
from rtdecode_models.systems.denoiser import Denoiser, build
from rtdecode_models.systems.shape import Shape

SFREQ, N_TIMES = 128.0, 256
TRAIN, TEST, BATCH = 20_000, 2_000, 128
LEARNING_RATE = 1e-3
RATIOS = (-7.0, -4.0, -1.0, 2.0, 5.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="how long to train")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(1000 + arguments.seed)
    denoiser = build({}, Shape(N_TIMES, 1, SFREQ))
    zeros = np.zeros(TRAIN, np.int64)
    train_x = clean_eeg(rng, TRAIN, N_TIMES, SFREQ)[:, :, None]
    denoiser.prepare(Trials(train_x, SFREQ, zeros, zeros, ("simulated",), ("simulated",)))
    train(denoiser, torch.from_numpy(train_x), arguments.steps)
    clean, dirt = clean_eeg(rng, TEST, N_TIMES, SFREQ), artifacts(rng, TEST, N_TIMES, SFREQ)
    print(f"seed {arguments.seed}, {arguments.steps} steps of {BATCH}; {TEST} simulated test signals")
    print("| dB | correlation before | after | 5th percentile after |\n|---|---|---|---|")
    for ratio in RATIOS:
        dirty = contaminate(clean, dirt, ratio)
        with torch.no_grad():
            denoised = denoiser.eval().denoise(torch.from_numpy(dirty)[:, :, None])[:, :, 0].numpy()
        before, after = correlation(dirty, clean), correlation(denoised, clean)
        print(f"| {ratio:g} | {before.mean():.3f} | {after.mean():.3f} | {np.quantile(after, 0.05):.3f} |", flush=True)


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
