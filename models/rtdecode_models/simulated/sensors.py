"""Where simulated sensors are, and what a dipole in a spherical head gives at each of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdecode.encode.manifest import Contract, ContractChannel
from rtdecode.errors import ConfigError
from rtdecode.sources.forward import MONTAGE, RADIUS
from rtdecode_models.simulated.electrodes import place_of

Array = NDArray[np.float64]

#: Conductivity of the head in S/m, and mu_0 / 4 pi in T m/A.
CONDUCTIVITY, MU = 0.33, 1e-7
#: Radius of the MEG helmet, the baseline of its axial gradiometers (m), and how far down it reaches from the vertex.
HELMET, BASELINE, RIM = 0.12, 0.05, math.radians(115.0)


@dataclass(frozen=True, slots=True, eq=False)
class Sensors:
    """A sensor array.

    Parameters
    ----------
    names : tuple of str
        In the order of the data's columns.
    type, unit : str
        MNE's channel type, and the SI unit.
    places : ndarray of float64, shape (sensors, 3)
        Metres; x to the right, y to the front, z up, the centre of the head at 0.
    """

    names: tuple[str, ...]
    type: str
    unit: str
    places: Array

    @property
    def flat(self) -> Array:
        """Azimuthal equidistant projection from the vertex, scaled to [0, 1], shape (sensors, 2)."""
        unit = self.places / np.linalg.norm(self.places, axis=1, keepdims=True)
        angle = np.arccos(np.clip(unit[:, 2], -1.0, 1.0))
        across = np.hypot(unit[:, 0], unit[:, 1])
        flat = unit[:, :2] * (angle / np.maximum(across, 1e-9))[:, None]
        low, high = flat.min(axis=0), flat.max(axis=0)
        return np.asarray((flat - low) / (high - low))

    def contract(self, sfreq: float) -> Contract:
        """A stream of these sensors at `sfreq` Hz."""
        return Contract(
            channels=tuple(ContractChannel(name=name, type=self.type, unit=self.unit) for name in self.names),
            sfreq=sfreq,
        )

    def fields(self, sources: Array, moments: Array) -> Array:
        """What each dipole gives at each sensor, in volts or tesla.

        EEG: the potential in an infinite homogeneous conductor (Nunez and Srinivasan, Electric Fields of the Brain,
        2006, chapter 5), against infinity. MEG: the radial field outside a conducting sphere, to which volume currents
        add nothing (Sarvas, Phys. Med. Biol. 32, 1987, section 4), at two coils `BASELINE` apart, subtracted.

        Parameters
        ----------
        sources : ndarray, shape (dipoles, 3)
            Metres.
        moments : ndarray, shape (dipoles, 3)
            A m.

        Returns
        -------
        ndarray of float64, shape (dipoles, sensors)
        """
        if self.type == "eeg":
            away = self.places[None] - sources[:, None]
            along = np.einsum("ncx,nx->nc", away, moments)
            return np.asarray(along / (4 * math.pi * CONDUCTIVITY * np.linalg.norm(away, axis=2) ** 3))
        out = self.places / np.linalg.norm(self.places, axis=1, keepdims=True)
        turned = np.cross(sources, moments) @ out.T
        near = np.linalg.norm(self.places[None] - sources[:, None], axis=2)
        far = np.linalg.norm((self.places + BASELINE * out)[None] - sources[:, None], axis=2)
        return np.asarray(MU * turned * (near**-3.0 - far**-3.0))


def eeg(names: Sequence[str] = ()) -> Sensors:
    """Electrodes of the 10-5 system; where none are named the 63 of THINGS-EEG2, whose reference was Fz.

    Raises
    ------
    ConfigError
        There is no such electrode.
    """
    names = tuple(names) or tuple(name for name in MONTAGE if name != "Fz")
    places = {name: place_of(name) for name in names}
    unknown = [name for name, place in places.items() if place is None]
    if unknown:
        raise ConfigError(
            f"data.channels: no simulated electrode is called {unknown[0]!r}; expected {', '.join(MONTAGE)}, or "
            "another name of the 10-5 system"
        )
    return Sensors(names, "eeg", "V", np.array(list(places.values()), np.float64))


def meg(n_sensors: int) -> Sensors:
    """Axial gradiometers spread evenly over a helmet, ``MEG001`` at the vertex."""
    number = np.arange(n_sensors)
    height = 1.0 - (1.0 - math.cos(RIM)) * (number + 0.5) / n_sensors
    turn = number * math.pi * (3.0 - math.sqrt(5.0))
    across = np.sqrt(1.0 - height**2)
    places = HELMET * np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=1)
    return Sensors(tuple(f"MEG{at + 1:03d}" for at in number), "mag", "T", places)


def brain(rng: np.random.Generator, n: int, tilt: tuple[float, float], turn: tuple[float, float]) -> Array:
    """Places of `n` sources in a part of the brain, left and right alike, shape (n, 3).

    Parameters
    ----------
    rng : Generator
        Draws them.
    n : int
        How many.
    tilt : tuple of float
        Range of the angle from the vertex, in degrees.
    turn : tuple of float
        Range of the angle from the front, in degrees, to either side.
    """
    tilts, turns = np.radians(rng.uniform(*tilt, n)), np.radians(rng.uniform(*turn, n))
    side = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    depth = RADIUS * rng.uniform(0.55, 0.82, n)
    across = np.sin(tilts)
    unit = np.stack([side * across * np.sin(turns), across * np.cos(turns), np.cos(tilts)], axis=1)
    return np.asarray(depth[:, None] * unit)
