"""pydantic's error details in the words of the file's user: its keys, what was expected, what may have been meant."""

import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from rtdecode.config.problems import Problem, suggest
from rtdecode.config.sections import (
    Config,
    FieldTripConfig,
    LockedWindow,
    LslConfig,
    RecordingConfig,
    SimulatedConfig,
    SlidingWindow,
    ZmqConfig,
)

#: Parts that pydantic puts into an error's place for the members of a union; they are no keys of the file.
_TAGS: dict[str, type[BaseModel]] = {
    "lsl": LslConfig,
    "zmq": ZmqConfig,
    "fieldtrip": FieldTripConfig,
    "recording": RecordingConfig,
    "simulated": SimulatedConfig,
    "sliding": SlidingWindow,
    "locked": LockedWindow,
}


def explain(detail: Any) -> Problem:
    """One of pydantic's error details, in our words."""
    parent, place = _walk(detail["loc"])
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    match detail["type"]:
        case "extra_forbidden":
            known = [name for model in parent for name in model.model_fields]
            message = f"unknown key{suggest(key, known)}; known here: {', '.join(known)}"
        case "missing":
            message = f"is missing{_expected(parent, key)}"
        case "union_tag_not_found":
            place = f"{place}.kind"
            message = "is missing; expected lsl, zmq, fieldtrip, recording or simulated"
        case "union_tag_invalid":
            place = f"{place}.kind"
            given = detail["ctx"]["tag"]
            message = f"is {given!r}{suggest(given, _TAGS)}; expected lsl, zmq, fieldtrip, recording or simulated"
        case "value_error":
            message = str(detail["ctx"]["error"])
        case "literal_error":
            given = detail["input"]
            choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            message = f"is {given!r}{suggest(str(given), choices)}; expected {detail['ctx']['expected']}"
        case _:
            what = detail["msg"].replace("Input should be", "expected").replace("String should", "should")
            message = f"is {detail['input']!r}; {what}{_expected(parent, key)}"
    return Problem(place, message)


def _walk(loc: tuple[int | str, ...]) -> tuple[list[type[BaseModel]], str]:
    """The models whose key the last part of `loc` is, and `loc` as the file's user would write it."""
    here: list[type[BaseModel]] = [Config]
    parent = here
    place = ""
    open_keys = False  # the next part is a key that the user chose
    for part in loc:
        if isinstance(part, int):
            place += f"[{part}]"
            continue
        if not open_keys and _TAGS.get(part) in here and len(here) > 1:
            here = [_TAGS[part]]
            continue
        place += f".{part}" if place else part
        if open_keys:
            open_keys = False
            continue
        parent = here
        annotations = [model.model_fields[part].annotation for model in here if part in model.model_fields]
        here = [model for annotation in annotations for model in _models(annotation)]
        open_keys = any(getattr(annotation, "__origin__", None) is dict for annotation in annotations)
    return parent, place


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every section within an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _expected(models: list[type[BaseModel]], key: str) -> str:
    for model in models:
        if key in model.model_fields and model.model_fields[key].description:
            text = " ".join((model.model_fields[key].description or "").split())
            return f" ({text.rstrip('.')})"
    return ""
