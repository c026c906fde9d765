"""Which sessions and trials are trained on, validated on and tested on; declared in a recipe's table ``[split]``.

::

    [split]
    test = { by = "session", names = ["*R14.edf"] }
    validation = { by = "trial", share = 0.1 }
    unseen_items = false

Sessions and subjects are named, by shell patterns, or drawn as a share. Trials and stimuli are drawn from the training
sessions; fitted steps never see them. What comes of a split does not depend on the order of the sessions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import escape
from typing import Literal

import msgspec
import numpy as np
from msgspec.structs import replace as replace_struct
from numpy.typing import NDArray

from rtdecode.errors import ConfigError
from rtdecode_models.data.source import TrialSource
from rtdecode_models.data.trials import Dataset, Trials


class Held(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is held out of the training: by name, or as a share.

    Parameters
    ----------
    by : str
        ``session``; ``subject``: all sessions of a person; ``item``: all trials of a stimulus; ``trial``.
    names : tuple of str
        Names or shell patterns of sessions, subjects or stimuli.
    share : float
        Instead of names, how many of them, 0 to 1; trials are drawn alike from each class.
    """

    by: Literal["session", "subject", "trial", "item"] = "session"
    names: tuple[str, ...] = ()
    share: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what holds nothing out, or everything."""
        if bool(self.names) == bool(self.share):
            raise ValueError(f"give names or a share of the {self.by}s, and not both")
        if not 0 <= self.share < 1:
            raise ValueError(f"share is {self.share}; expected more than 0 and less than 1")
        if self.by == "trial" and self.names:
            raise ValueError("trials have no names; give a share of them")


class Split(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[split]``.

    Parameters
    ----------
    test : Held, optional
        Where not given, the sessions that the data declare for testing (THINGS-EEG2's), or none.
    validation : Held, optional
        Of what is left: for early stopping and calibration.
    left_out : tuple of str
        Sessions, by name or pattern, that are used for nothing.
    stratify : str
        The label whose classes trials are drawn alike from; the first label where empty.
    unseen_items : bool
        No stimulus of the test may be among those trained on (zero-shot); checked.
    seed : int
        Of what is drawn.
    """

    test: Held | None = None
    validation: Held | None = None
    left_out: tuple[str, ...] = ()
    stratify: str = ""
    unseen_items: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a seed that no generator takes."""
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; expected 0 or more")


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of each part, in the order of the data; together they are all of them, and none is in two.

    Parameters
    ----------
    train, validation, test, unused : tuple of str
        Trials and stimuli that are held out lie in `train`.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A data set that is split.

    Parameters
    ----------
    dataset : Dataset
        `train` holds what is trained on alone, `test` what is tested on.
    validation : Trials or None
        Of the same subjects, in the same order.
    sessions : Sessions
        Where they came from.
    """

    dataset: Dataset
    validation: Trials | None
    sessions: Sessions


def split_sessions(split: Split, source: TrialSource) -> Sessions:
    """Which session goes where.

    Raises
    ------
    ConfigError
        A pattern matches nothing, a session would be in two parts, or nothing is left to train on.
    """
    names = source.sessions
    unused = _matching(split.left_out, names, "split.left_out", "session") if split.left_out else set()
    declared = set(source.test_sessions) - unused
    rest = [name for name in names if name not in unused]
    test = set(declared) if split.test is None else _held(split.test, rest, source, split.seed, "split.test")
    if declared and split.test is not None:
        unused |= test - declared  # the training sessions of a test subject
        test &= declared
        if split.test.by in ("session", "subject") and not test:
            raise ConfigError(
                f"split.test holds out no session that the data declare for testing; those are {_some(declared)}"
            )
    unused |= declared - test
    rest = [name for name in rest if name not in test | unused]
    held: set[str] = set()
    if split.validation is not None:
        if taken := _named(split.validation, [*test], source):
            raise ConfigError(f"split.validation names {_some(taken)}, which split.test holds out already")
        held = _held(split.validation, rest, source, split.seed + 1, "split.validation")
    train = tuple(name for name in rest if name not in held)
    if not train:
        raise ConfigError(f"[split] leaves no session to train on, of {_some(names)}")

    def ordered(chosen: set[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in chosen)

    return Sessions(train, ordered(held), ordered(test), ordered(unused))


def split_data(split: Split, source: TrialSource) -> Parts:
    """Read, split and condition: the fitted steps see the training trials and nothing else.

    Raises
    ------
    ConfigError
        As `split_sessions`; there is no trial or stimulus to draw; or a stimulus of the test was trained on, where
        ``unseen_items`` forbids it.
    RecordingError
        A session cannot be read.
    """
    sessions = split_sessions(split, source)
    dataset = source.dataset(sessions.train)
    rows = np.arange(len(dataset.train))
    drawn: dict[str, NDArray[np.int64]] = {}
    for part, held in (("test", split.test), ("validation", split.validation)):
        if held is not None and held.by in ("trial", "item"):
            seed = split.seed + (part == "validation")
            drawn[part] = draw_trials(dataset.train, rows, held, split.stratify, seed, f"split.{part}")
            rows = np.setdiff1d(rows, drawn[part])
    if drawn and dataset.arrays:
        dataset = source.dataset(sessions.train, rows)  # what was fitted had seen what is now held out
    whole = dataset.train
    parts = {part: whole.take(those) for part, those in drawn.items()}
    if sessions.validation:
        parts["validation"] = source.test(sessions.validation, dataset)
    if sessions.test:
        parts["test"] = source.test(sessions.test, dataset)
    test = parts.get("test")
    if drawn:
        # The piece of raw recording begins with windows that may have been drawn: `TrialSource.deployed` has another.
        left = dict(zip(whole.sessions, _by_session(whole, rows), strict=True))
        dataset = replace(dataset, train=whole.take(rows), raw=None, raw_starts=(), trained_on=left)
    if split.unseen_items:
        check_unseen(dataset.train, test)
    return Parts(replace(dataset, test=test), parts.get("validation"), sessions)


def draw_trials(
    trials: Trials, among: NDArray[np.int64], held: Held, stratify: str, seed: int, where: str
) -> NDArray[np.int64]:
    """Rows of the trials that are held out, drawn alike from each class, or all of some stimuli.

    The same trials are drawn in whatever order their sessions come.

    Parameters
    ----------
    trials : Trials
        Session by session; within each in the order of the data.
    among : ndarray of int64
        Rows to draw from.
    held : Held
        By ``trial`` or ``item``.
    stratify : str
        Label name; the first label where empty.
    seed : int
        Of the draw.
    where : str
        The recipe's key, for messages.

    Returns
    -------
    ndarray of int64
        Sorted.
    """
    if held.by == "item":
        return _draw_items(trials, among, held, seed, where)
    label = _stratum(trials, stratify, where)
    order = _canonical(trials, among)
    rng = np.random.default_rng(seed)
    chosen = []
    for value in np.unique(label[order]):
        rows = order[label[order] == value]
        chosen.append(rng.permutation(rows)[: _count(held.share, len(rows))])
    found = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    if not 0 < len(found) < len(among):
        raise ConfigError(
            f"{where}: a share of {held.share:g} of {len(among)} trials holds out {len(found)} of them; expected some "
            "to hold out and some to train on"
        )
    return found


def check_unseen(train: Trials, test: Trials | None) -> None:
    """Raise `ConfigError` where a stimulus of the test was trained on, or where trials have no stimulus."""
    if test is None:
        raise ConfigError("split.unseen_items is set, but nothing is held out to test on; set split.test")
    both = sorted(items_of(train) & items_of(test))
    if both:
        raise ConfigError(
            f"split.unseen_items is set, but the test holds {len(both)} stimuli that are trained on: {_some(both)}; "
            'hold stimuli out with test = { by = "item", ... }'
        )


def items_of(trials: Trials) -> set[str]:
    """Names of the stimuli that occur; raise `ConfigError` where trials have none."""
    if trials.item is None or trials.gallery is None:
        raise ConfigError(
            "the trials have no stimuli: the data declare no `stimuli`, so none can be held out or checked"
        )
    return {trials.gallery.names[row] for row in np.unique(trials.item)}


def folds(split: Split, source: TrialSource, by: Literal["session", "subject"]) -> Iterator[tuple[str, Split]]:
    """Leave each training session (or subject) out once, and test on it; what `split` tests on is never touched.

    Yields
    ------
    tuple of str and Split
        Who is left out, and the split that does it.
    """
    sessions = split_sessions(split, source)
    pool = list(sessions.train)
    if split.validation is not None and split.validation.share:
        pool += sessions.validation  # drawn anew in each fold
    unseen = tuple(escape(name) for name in (*sessions.test, *sessions.unused))
    for unit, members in _units(pool, source, by):
        test = Held(by="session", names=tuple(escape(name) for name in members))
        yield unit, replace_struct(split, test=test, left_out=unseen)


def each_tested(split: Split, source: TrialSource, by: Literal["session", "subject"]) -> Iterator[tuple[str, Split]]:
    """Test on each session (or subject) once and train on all others: leave-one-session-out, leave-one-subject-out.

    Of data that declare sessions for testing, a subject's test is on those; its other sessions are not trained on.

    Yields
    ------
    tuple of str and Split
        Who is tested on, and the split that does it.
    """
    unused = _matching(split.left_out, source.sessions, "split.left_out", "session") if split.left_out else set()
    rest = [name for name in source.sessions if name not in unused]
    candidates = [name for name in rest if name in source.test_sessions] or rest
    for unit, _ in _units(candidates, source, by):
        yield unit, replace_struct(split, test=Held(by=by, names=(escape(unit),)))


def _units(pool: Sequence[str], source: TrialSource, by: str) -> list[tuple[str, list[str]]]:
    units: dict[str, list[str]] = {}
    for name in source.sessions:
        if name in pool:
            units.setdefault(name if by == "session" else source.subject_of(name), []).append(name)
    if len(units) < 2:
        raise ConfigError(f"leaving one {by} out takes two at least; there is {_some(units)}")
    return list(units.items())


def _named(held: Held, sessions: Sequence[str], source: TrialSource) -> set[str]:
    """Those of the sessions that a part names, if it names any."""
    if held.by not in ("session", "subject"):
        return set()
    key = source.subject_of if held.by == "subject" else str
    return {name for name in sessions if any(fnmatchcase(key(name), pattern) for pattern in held.names)}


def _held(held: Held, rest: Sequence[str], source: TrialSource, seed: int, where: str) -> set[str]:
    """The sessions of a part; none where it is drawn from trials or stimuli."""
    if held.by not in ("session", "subject"):
        return set()
    key = source.subject_of if held.by == "subject" else str
    keys = sorted({key(name) for name in rest})
    if held.names:
        chosen = _matching(held.names, keys, f"{where}.names", held.by)
    else:
        count = _count(held.share, len(keys))
        chosen = {keys[at] for at in np.random.default_rng(seed).permutation(len(keys))[:count]}
        if not chosen:
            raise ConfigError(f"{where}: a share of {held.share:g} of {len(keys)} {held.by}s holds out none")
    return {name for name in rest if key(name) in chosen}


def _matching(patterns: Sequence[str], names: Sequence[str], where: str, what: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        match = {name for name in names if fnmatchcase(name, pattern)}
        if not match:
            raise ConfigError(f"{where}: {pattern!r} matches no {what}; there are {_some(names)}")
        found |= match
    return found


def _draw_items(trials: Trials, among: NDArray[np.int64], held: Held, seed: int, where: str) -> NDArray[np.int64]:
    items_of(trials)
    assert trials.item is not None
    assert trials.gallery is not None
    names = np.array([trials.gallery.names[row] for row in trials.item[among]])
    there = sorted(set(names.tolist()))
    if held.names:
        chosen = _matching(held.names, there, f"{where}.names", "stimulus")
    else:
        count = _count(held.share, len(there))
        chosen = {there[at] for at in np.random.default_rng(seed).permutation(len(there))[:count]}
    if not 0 < len(chosen) < len(there):
        raise ConfigError(
            f"{where} holds out {len(chosen)} of {len(there)} stimuli; expected some to hold out and some to train on"
        )
    return np.sort(among[np.isin(names, sorted(chosen))])


def _stratum(trials: Trials, stratify: str, where: str) -> NDArray[np.int64]:
    if not stratify:
        return next(iter(trials.labels.values()), np.zeros(len(trials), np.int64))
    if stratify not in trials.labels:
        raise ConfigError(f"{where}: split.stratify names the label {stratify!r}; there are {_some(trials.labels)}")
    return trials.labels[stratify]


def _canonical(trials: Trials, among: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows, by name of session: an order that does not depend on that of the sessions."""
    place = np.argsort(np.argsort(trials.sessions))
    return among[np.argsort(place[trials.session[among]], kind="stable")]


def _by_session(trials: Trials, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Of each session, which of its windows these rows are; trials come session by session."""
    first = np.searchsorted(trials.session, np.arange(len(trials.sessions)))
    return [rows[trials.session[rows] == at] - start for at, start in enumerate(first)]


def _count(share: float, n: int) -> int:
    """How many of n a share is: rounded, one at least where two are there."""
    return max(min(1, n - 1), round(share * n))


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(map(repr, listed[:8])) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "") or "none"
