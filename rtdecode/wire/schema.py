"""The JSON Schema of every message: ``python -m rtdecode.wire.schema > docs/wire.schema.json``."""

import inspect
import json
import sys
from typing import Any

import msgspec

from rtdecode.wire.messages import VERSION, Description, Event, Health, Samples, Window


def schema() -> dict[str, Any]:
    """One schema that any header of this version satisfies; each kind of message is one of its ``$defs``."""
    kinds = (Window, Event, Description, Health, Samples)
    _, components = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    for kind in kinds:  # the version has a default for those who write a message, and must be there for those who read
        components[kind.__name__]["properties"]["v"] = {"const": VERSION}
        components[kind.__name__]["required"].append("v")
    for component in components.values():  # Python 3.13 takes the indent off docstrings, earlier ones keep it
        if "description" in component:
            component["description"] = inspect.cleandoc(component["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"rtdecode wire messages, version {VERSION}",
        "oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
        "$defs": dict(sorted(components.items())),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n")
