"""TOML has types: neither `true` nor "1" is a number, and 1 is not `true`, though all of them could be taken for it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from rtdecode.config.problems import Problem


def wrong_kinds(models: Sequence[type[BaseModel]], table: Mapping[str, Any], place: str = "") -> Iterator[Problem]:
    """Values of another type than their key's, in a table that one of `models` describes, and in those within it."""
    for key, value in table.items():
        annotations = [model.model_fields[key].annotation for model in models if key in model.model_fields]
        leaves = {leaf for annotation in annotations for leaf in _leaves(annotation)}
        sections = [leaf for leaf in leaves if issubclass(leaf, BaseModel)]
        here = f"{place}.{key}" if place else key
        if not sections:
            yield from _wrong(leaves - {type(None)}, value, here)
        elif any(get_origin(annotation) is dict for annotation in annotations):
            for name, one in value.items() if isinstance(value, dict) else ():
                yield from wrong_kinds(sections, one if isinstance(one, dict) else {}, f"{here}.{name}")
        elif isinstance(value, dict):
            yield from wrong_kinds(sections, value, here)
        elif isinstance(value, list):
            for n, one in enumerate(value):
                yield from wrong_kinds(sections, one if isinstance(one, dict) else {}, f"{here}[{n}]")


def _wrong(kinds: set[type], value: Any, place: str) -> Iterator[Problem]:
    for one in value if isinstance(value, list) else [value]:
        if kinds and kinds <= {int, float} and isinstance(one, bool | str):
            yield Problem(place, f"is {one!r}; expected a number, without quotes")
        if kinds == {bool} and not isinstance(one, bool):
            yield Problem(place, f"is {one!r}; expected true or false, without quotes")


def _leaves(annotation: Any) -> Iterator[type]:
    """The types that an annotation is made of."""
    if get_origin(annotation) is Literal:
        yield str
    elif get_origin(annotation) is Annotated:
        yield from _leaves(get_args(annotation)[0])
    elif get_args(annotation):
        for inner in get_args(annotation):
            yield from _leaves(inner)
    elif isinstance(annotation, type):
        yield annotation
