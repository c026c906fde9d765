"""Contacts of depth electrodes: which lie side by side, how they are referenced, and which of them a decoder uses."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from rtdecode.errors import ConfigError
from rtdecode.stream.steps import Bipolar, Laplacian, Pick, StreamStep

#: How contacts are referenced: each against the next on its shaft, against the mean of both neighbours, or not at all.
Referencing = Literal["bipolar", "laplacian", "none"]

#: ``L'12``, ``POL A3``, ``LFP_RIGHT_0``, ``LA1-Ref``: the shaft, the number, and what recorders append.
_CONTACT = re.compile(r"^(?P<shaft>.*?)[ _]*(?P<number>\d+)(?:-[A-Za-z]\w*)?$")


def place(name: str) -> tuple[str, int] | None:
    """Shaft and number of a contact; None where the name does not end in a number."""
    match = _CONTACT.match(name)
    return (match["shaft"], int(match["number"])) if match else None


def neighbours(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Contact -> those whose number on the same shaft is one lower or one higher, in that order.

    Raises
    ------
    ConfigError
        Two names mean the same contact.
    """
    at = _placed(names)
    return {
        name: tuple(at[shaft, beside] for beside in (number - 1, number + 1) if (shaft, beside) in at)
        for (shaft, number), name in at.items()
    }


def bipolar_pairs(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Each contact with the next one on its shaft; none across a contact that is missing."""
    at = _placed(names)
    return tuple((name, at[shaft, number + 1]) for (shaft, number), name in at.items() if (shaft, number + 1) in at)


def _placed(names: Sequence[str]) -> dict[tuple[str, int], str]:
    """Shaft and number -> contact, in the order of the names; those without a number are left out."""
    at: dict[tuple[str, int], str] = {}
    for name in names:
        where = place(name)
        if where is None:
            continue
        if where in at:
            raise ConfigError(f"{at[where]!r} and {name!r} both name contact {where[1]} of shaft {where[0]!r}")
        at[where] = name
    return at


def sites(referencing: Referencing, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What can be decoded from, and the contacts that each needs.

    Parameters
    ----------
    referencing : {"bipolar", "laplacian", "none"}
        How.
    names : sequence of str
        Contacts, as the stream spells them.

    Returns
    -------
    dict of str to tuple of str
        Channel after referencing -> itself first, or the anode, and then what is subtracted from it.

    Raises
    ------
    ConfigError
        No contact has the neighbours that it needs.
    """
    if referencing == "none":
        return {name: (name,) for name in names}
    if referencing == "bipolar":
        found: dict[str, tuple[str, ...]] = {
            f"{anode}-{cathode}": (anode, cathode) for anode, cathode in bipolar_pairs(names)
        }
    else:
        # The outermost contacts have a neighbour on one side only: a difference, not a Laplacian.
        found = {name: (name, *beside) for name, beside in neighbours(names).items() if len(beside) == 2}
    if not found:
        shown = ", ".join(names[:4])
        raise ConfigError(
            f"no {referencing} reference can be made of {len(names)} contacts ({shown}...); expected names that end in "
            "the contact's number on its shaft, as A1, A2, A3"
        )
    return found


def referencing_step(referencing: Referencing, chosen: Mapping[str, Sequence[str]]) -> StreamStep:
    """The conditioning step that makes these sites out of their contacts, in their order.

    Parameters
    ----------
    referencing : {"bipolar", "laplacian", "none"}
        How.
    chosen : mapping of str to sequence of str
        Some of what `sites` gave.
    """
    if referencing == "bipolar":
        return Bipolar(pairs=tuple((anode, cathode) for anode, cathode in chosen.values()))
    if referencing == "laplacian":
        return Laplacian(neighbours={name: tuple(contacts[1:]) for name, contacts in chosen.items()})
    return Pick(channels=tuple(chosen))


def contacts_of(chosen: Mapping[str, Sequence[str]], names: Sequence[str]) -> tuple[str, ...]:
    """The contacts that these sites need, each once, in the order of `names`."""
    needed = {contact for contacts in chosen.values() for contact in contacts}
    return tuple(name for name in names if name in needed)


def best(
    scores: Mapping[str, float],
    n: int | None = None,
    regions: Mapping[str, str] | None = None,
    wanted: Sequence[str] = (),
) -> tuple[str, ...]:
    """Sites with the highest scores, of the regions that matter; best first.

    Du-IN's selection (arXiv 2405.11459): ten channels of the speech regions, ``n=10, wanted=("vSMC", "STG")``.

    Parameters
    ----------
    scores : mapping of str to float
        Site -> score.
    n : int, optional
        How many; all where not given.
    regions : mapping of str to str, optional
        Site -> region; a bipolar site may lie in two, ``"vSMC|STG"``.
    wanted : sequence of str
        Regions to choose from; all where there are none.

    Raises
    ------
    ConfigError
        Fewer than `n` sites lie in those regions, or no site does.
    """
    known = dict(regions or {})
    inside = [name for name in scores if not wanted or set(known.get(name, "").split("|")) & set(wanted)]
    if len(inside) < (n or 1):
        there = ", ".join(sorted({part for region in known.values() for part in region.split("|")})) or "none"
        raise ConfigError(
            f"{len(inside)} sites to choose {n or 'some'} from"
            + (f" in {', '.join(wanted)} (regions that are known: {there})" if wanted else "")
            + "; expected at least as many"
        )
    order = np.argsort([-scores[name] for name in inside], kind="stable")
    return tuple(inside[at] for at in order[:n])


def site_regions(
    found: Mapping[str, Sequence[str]], regions: Mapping[str, str], referencing: Referencing
) -> dict[str, str]:
    """Site -> region, from the contacts' regions; of a bipolar site both, joined by ``|`` where they differ."""
    of: dict[str, str] = {}
    for name, contacts in found.items():
        counted = contacts if referencing == "bipolar" else contacts[:1]
        parts = dict.fromkeys(regions[contact] for contact in counted if contact in regions)
        if parts:
            of[name] = "|".join(parts)
    return of
