"""What published offline figures of EEG-SimpleConv rest on and no decoder can do live: for comparison, never deployed.

Two things look at the test session as a whole before its first trial is decoded: batch norm left in training mode (the
"BN trick"), so that features are normalised by the session's own statistics, and Euclidean alignment by the covariance
of all the session's trials (He and Wu, IEEE TBME 2020). What is measured with either is reported apart.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rtdecode.stream.fit import euclidean_alignment
from rtdecode_models.data.trials import Trials
from rtdecode_models.systems.encoder import Encoder


def aligned_by_session(trials: Trials) -> Trials:
    """Trials whose windows are multiplied by R^(-1/2) of their own session, with R over all its trials."""
    x = np.empty_like(trials.x)
    for session in np.unique(trials.session):
        rows = trials.session == session
        x[rows] = trials.x[rows] @ euclidean_alignment(trials.x[rows]).T
    return replace(trials, x=x)


def logits_by_session_statistics(network: Encoder, trials: Trials) -> NDArray[np.float32]:
    """Logits (n, classes), each session one batch, with batch norm taking its statistics from that batch.

    Parameters
    ----------
    network : Encoder
        Trained; left as it was.
    trials : Trials
        Of one session or more, whole.
    """
    copied = copy.deepcopy(network).eval()
    for module in copied.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.train()
    found: list[tuple[NDArray[np.bool_], NDArray[np.float32]]] = []
    with torch.no_grad():
        for session in np.unique(trials.session):
            rows = trials.session == session
            window, subject = torch.from_numpy(trials.x[rows]), torch.from_numpy(trials.subject[rows])
            found.append((rows, copied(window, subject)["logits"].numpy()))
    logits = np.empty((len(trials), found[0][1].shape[1]), np.float32)
    for rows, values in found:
        logits[rows] = values
    return logits
