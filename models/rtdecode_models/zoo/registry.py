"""All entries of the zoo, in the order of the published list."""

import importlib

from rtdecode_models.zoo.entry import Entry

#: Modules under ``rtdecode_models.zoo`` that define ``ENTRIES``.
MODULES: tuple[str, ...] = (
    "brain_module",
    "atm_nice",
    "ubp",
    "ridge",
    "cross_subject",
    "du_in",
    "brainbert",
    "motor_imagery",
    "baselines",
    "histn",
    "geometric",
    "neuro3d",
    "neuroimagen",
)


def entries() -> tuple[Entry, ...]:
    """Every system in every published configuration that the zoo has."""
    return tuple(entry for name in MODULES for entry in importlib.import_module(f"rtdecode_models.zoo.{name}").ENTRIES)
