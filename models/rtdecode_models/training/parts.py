"""What a recipe's split leaves to train on, read once; what it tests on stays unread until it is asked for."""

from collections.abc import Callable
from dataclasses import replace
from glob import escape

import msgspec
import numpy as np

from rtdecode.errors import ConfigError
from rtdecode_models.data.remembered import Remembered
from rtdecode_models.data.source import TrialSource
from rtdecode_models.data.splits import Parts, Split, check_unseen, items_of, split_data, split_sessions
from rtdecode_models.data.trials import Trials
from rtdecode_models.training.checkpoint import EVERYONE
from rtdecode_models.training.recipe import Recipe

#: Bytes of windows that are kept in memory beside those in use.
_KEPT = 4 << 30


class Workshop:
    """The data of a training, opened and split once for all that need them.

    Parameters
    ----------
    opener : callable
        From a recipe to its data.
    """

    def __init__(self, opener: Callable[[Recipe], TrialSource]) -> None:
        self._open = opener
        self._sources: dict[bytes, TrialSource] = {}
        self._parts: Remembered[Parts] = Remembered(_KEPT, lambda parts: parts.dataset.train.x.nbytes)

    def source(self, recipe: Recipe) -> TrialSource:
        """The recipe's data; raise `ConfigError` where a subject has the name that a checkpoint has for all."""
        key = msgspec.json.encode(recipe.data)
        if key not in self._sources:
            source = self._open(recipe)
            if any(source.subject_of(session) == EVERYONE for session in source.sessions):
                raise ConfigError(
                    f"[data] has a subject {EVERYONE!r}, which is what a checkpoint calls all of them together; rename "
                    "that subject"
                )
            self._sources[key] = source
        return self._sources[key]

    def parts(self, recipe: Recipe, split: Split) -> Parts:
        """What to train on and to validate on; test sessions are not read, and `Parts.sessions` names them."""
        key = msgspec.json.encode((recipe.data, split))
        return self._parts.get(key, lambda: training_parts(split, self.source(recipe)))

    def test(self, recipe: Recipe, split: Split) -> Trials | None:
        """What to test on, once everything is trained; None where nothing is held out."""
        parts = self.parts(recipe, split)
        test = parts.dataset.test
        if parts.sessions.test:
            test = self.source(recipe).test(parts.sessions.test, parts.dataset)
        if split.unseen_items:
            check_unseen(parts.dataset.train, test)
        return None if test is None else without_validated(test, parts)


def without_validated(test: Trials, parts: Parts) -> Trials:
    """The test, with a gallery without stimuli that were held out for validation alone: they are no candidates of it.

    Where all sessions share one gallery, how hard the test is would else depend on how much is validated on.
    """
    gallery = test.gallery
    if gallery is None or test.item is None or parts.validation is None or parts.validation.item is None:
        return test
    only = items_of(parts.validation) - items_of(parts.dataset.train) - items_of(test)
    kept = np.array([row for row, name in enumerate(gallery.names) if name not in only])
    if len(kept) == len(gallery.names):
        return test
    return replace(test, item=np.searchsorted(kept, test.item), gallery=gallery.take(kept))


def training_parts(split: Split, source: TrialSource) -> Parts:
    """Split and condition without reading a test session.

    Where trials or stimuli of the training sessions are tested on, they are read with them, and nothing is fitted on
    them.
    """
    sessions = split_sessions(split, source)
    if not sessions.test:
        return split_data(msgspec.structs.replace(split, unseen_items=False), source)
    unread = (*sessions.test, *sessions.unused)
    without = msgspec.structs.replace(
        split, test=None, left_out=tuple(escape(name) for name in unread), unseen_items=False
    )
    return replace(split_data(without, source), sessions=sessions)
