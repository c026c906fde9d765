"""Places of electrodes of the 10-5 system that the 64 of `rtdecode.sources.forward` are not among.

A row of the 10-10 system is the great circle from its electrode on the midline through its last one; its columns are a
quarter of that arc apart, and those with an ``h`` half of that. A row of the 10-5 system lies half-way between two
(Oostenveld and Praamstra, Clinical Neurophysiology 112, 2001). On a sphere, and so no head's own.
"""

import re

import numpy as np
from numpy.typing import NDArray

from rtdecode.sources.forward import MONTAGE, RADIUS

Array = NDArray[np.float64]

#: Rows from the front to the back: the electrodes on the midline and at the end of a row.
_ENDS = {
    "Fp": ("Fpz", "Fp1"),
    "AF": ("AFz", "AF7"),
    "F": ("Fz", "F7"),
    "FC": ("FCz", "FT7"),
    "C": ("Cz", "T7"),
    "CP": ("CPz", "TP7"),
    "P": ("Pz", "P7"),
    "PO": ("POz", "PO7"),
    "O": ("Oz", "O1"),
    # nothing lies at the end of this one; so that I1 is as far from Iz as O1 is from Oz
    "I": ("Iz", "P9"),
}
#: What rows are called: of their own far from the midline, and half-way between two.
_CALLED = {name: (name,) for name in _ENDS} | {
    "FT": ("FC",),
    "T": ("C",),
    "TP": ("CP",),
    "AFp": ("Fp", "AF"),
    "AFF": ("AF", "F"),
    "FFC": ("F", "FC"),
    "FFT": ("F", "FC"),
    "FCC": ("FC", "C"),
    "FTT": ("FC", "C"),
    "CCP": ("C", "CP"),
    "TTP": ("C", "CP"),
    "CPP": ("CP", "P"),
    "TPP": ("CP", "P"),
    "PPO": ("P", "PO"),
    "POO": ("PO", "O"),
    "OI": ("O", "I"),
}


def place_of(name: str) -> tuple[float, float, float] | None:
    """Place of an electrode in metres, x to the right, y to the front, z up; None where there is none of that name."""
    if name in MONTAGE:
        return MONTAGE[name]
    found = re.fullmatch(r"([A-Z][A-Za-z]*?)(10|[1-9])(h?)", name)
    if found is None or found[1] not in _CALLED:
        return None
    number = int(found[2])
    column = (number + 1) // 2 - (0.5 if found[3] else 0.0)
    rows = [_along(row, column) for row in _CALLED[found[1]]]
    middle = np.sum(rows, axis=0)
    x, y, z = (float(value) for value in RADIUS * middle / np.linalg.norm(middle))
    return (x if number % 2 else -x, y, z)


def _along(row: str, column: float) -> Array:
    """Unit vector to a column of a row, on the left; beyond its last electrode on the same circle."""
    start, end = (np.array(MONTAGE[name]) / RADIUS for name in _ENDS[row])
    angle = np.arccos(np.clip(start @ end, -1.0, 1.0))
    share = column / 4.0
    return np.asarray((np.sin((1.0 - share) * angle) * start + np.sin(share * angle) * end) / np.sin(angle))
