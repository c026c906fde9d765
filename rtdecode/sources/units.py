"""From the unit that a stream or a file declares to SI, and how channel types are spelled.

Scaling happens in float64 with one cast to float32 at the end, so that a value does not depend on where it was scaled.
"""

import numpy as np
from numpy.typing import NDArray

#: SI prefixes that electrophysiology uses; both spellings of micro (U+00B5, U+03BC) and that of Shift-JIS.
_PREFIXES = {
    "": 1.0,
    "k": 1e3,
    "m": 1e-3,
    "u": 1e-6,
    "\u00b5": 1e-6,
    "\u03bc": 1e-6,
    "\x83\xca": 1e-6,
    "n": 1e-9,
    "p": 1e-12,
    "f": 1e-15,
}
_PREFIX_WORDS = {"": 1.0, "kilo": 1e3, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9, "pico": 1e-12, "femto": 1e-15}
_BASES = {"V": ("volt", "volts"), "T": ("tesla", "teslas")}
_PER_LENGTH = {"/m": 1.0, "/cm": 1e2, "/mm": 1e3}
_PLAIN = frozenset(
    {"1", "none", "n/a", "bool", "boolean", "code", "codes", "count", "counts", "integer", "marker", "#"}
)

#: Types of the channels whose samples are codes or plain numbers rather than a voltage or a field.
PLAIN_TYPES = frozenset({"stim", "syst", "chpi", "exci", "ias"})

#: Channel types as LSL senders, XDF files and EDF labels spell them, and as MNE does.
_TYPES = {
    "eeg": "eeg",
    "mag": "mag",
    "megmag": "mag",
    "meg": "mag",
    "grad": "grad",
    "meggrad": "grad",
    "meggradplanar": "grad",
    "meggradaxial": "mag",
    "ref_meg": "ref_meg",
    "megref": "ref_meg",
    "refmeg": "ref_meg",
    "seeg": "seeg",
    "ecog": "ecog",
    "ieeg": "ecog",
    "dbs": "dbs",
    "lfp": "dbs",
    "csd": "csd",
    "fnirs": "fnirs",
    "nirs": "fnirs",
    "stim": "stim",
    "sti": "stim",
    "trig": "stim",
    "trigger": "stim",
    "triggers": "stim",
    "marker": "stim",
    "markers": "stim",
    "status": "stim",
    "digital": "stim",
    "eog": "eog",
    "heog": "eog",
    "veog": "eog",
    "ecg": "ecg",
    "ekg": "ecg",
    "emg": "emg",
    "gsr": "gsr",
    "eda": "gsr",
    "resp": "resp",
    "respiration": "resp",
    "temperature": "temperature",
    "misc": "misc",
    "aux": "misc",
    "accelerometer": "misc",
    "acc": "misc",
    "bio": "bio",
    "ref": "misc",
}


def _table() -> dict[str, tuple[str, float]]:
    table: dict[str, tuple[str, float]] = {}
    for base, words in _BASES.items():
        for prefix, factor in _PREFIXES.items():
            table[prefix + base] = (base, factor)
        for prefix, factor in _PREFIX_WORDS.items():
            for word in words:
                table[prefix + word] = (base, factor)
    for prefix, factor in _PREFIXES.items():
        for length, per in _PER_LENGTH.items():
            table[prefix + "T" + length] = ("T/m", factor * per)
    return table


_UNITS = _table()


def si_unit(declared: str) -> tuple[str, float]:
    """The SI unit of a declared one, and the factor that takes samples to it.

    Parameters
    ----------
    declared : str
        ``"uV"``, ``"microvolts"``, ``"fT"``, ``"T/cm"``... Case matters for symbols (``mV`` is not ``MV``) and does
        not for words.

    Returns
    -------
    unit : str
        ``V``, ``T``, ``T/m``, ``1`` for plain numbers; empty where the unit is missing or unknown.
    factor : float
        1 where the unit is empty.
    """
    text = declared.strip()
    for spelling in (text, text.lower()):
        found = _UNITS.get(spelling)
        if found is not None and (spelling == text or len(spelling) > 3):  # "uv" stays unknown; "MicroVolts" does not
            return found
    if text in {"uv", "\u00b5v", "\u03bcv", "UV"}:  # seen in the wild, and nothing else can be meant
        return "V", 1e-6
    if text.lower() in _PLAIN and text.lower() != "n/a":
        return "1", 1.0
    return "", 1.0


def channel_type(declared: str) -> str:
    """MNE's name of a channel type, ``misc`` for one that is unknown, and empty for one that is not declared."""
    text = declared.strip().lower()
    return _TYPES.get(text, "misc") if text else ""


def to_si(samples: NDArray[np.generic], scales: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale samples to SI in float64 and cast once.

    Parameters
    ----------
    samples : ndarray, shape (n, channels)
        In the units, and the number format, that they came in.
    scales : ndarray of float64, shape (channels,)
        Factor of each channel. Where all are 1, float32 samples come out bit for bit as they went in.

    Returns
    -------
    ndarray of float32, shape (n, channels)
        A new C-contiguous array.
    """
    if samples.dtype == np.float32 and (scales == 1.0).all():
        return np.array(samples, np.float32, order="C")
    return np.ascontiguousarray(samples.astype(np.float64) * scales, dtype=np.float32)
