"""Documents of the configuration, made from `rtdecode.config`.

``python -m rtdecode.daemon.reference schema > docs/config.schema.json``,
``python -m rtdecode.daemon.reference page > docs/configuration.md``
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from rtdecode.config import Config

_HEAD = """\
# Configuration

One TOML file describes a session. `rtdecode check session.toml` says everything that is wrong with one, each thing with
its key and line; unknown keys are errors. Relative paths are taken from the file's folder. This page and
[config.schema.json](config.schema.json) are made from `rtdecode/config/` by `python -m rtdecode.daemon.reference`.

```toml
[source]
kind = "lsl"
name = "BrainAmp"
markers = [{ name = "Keys" }]

[source.declare]                   # what the stream leaves undeclared
unit = "uV"

[[source.triggers]]                # a trigger channel becomes markers
channel = "STI101"
mask = 255

[pipelines.gaze]
bundle = "bundles/gaze.zip"
publish = "tcp://127.0.0.1:5555"
budget_ms = 50

[[pipelines.gaze.windows]]         # in place of the bundle's own
length = 1.0
hop = 0.05
```

Several streams have a table each, `[sources.NAME]` in place of `[source]`, with the same keys; each pipeline says which
it decodes, and one that says `source = "*"` stands for one on each ([scale.md](scale.md)):

```toml
[sources.s01]
kind = "lsl"
name = "amplifier-01"

[sources.s02]
kind = "lsl"
name = "amplifier-02"

[pipelines.gaze]                   # gaze-s01 and gaze-s02
bundle = "bundles/gaze.zip"
publish = "tcp://127.0.0.1:5555"
source = "*"

[processes]
decode = 1                         # both in one process, which publishes at one address
```

Keys without a default must be given.
"""

#: Tables in the page's order: heading, name of the section's definition.
_TABLES = (
    ("[session]", "SessionConfig"),
    ('[source] with kind = "lsl"', "LslConfig"),
    ('[source] with kind = "zmq"', "ZmqConfig"),
    ('[source] with kind = "fieldtrip"', "FieldTripConfig"),
    ('[source] with kind = "recording"', "RecordingConfig"),
    ('[source] with kind = "simulated"', "SimulatedConfig"),
    ("each of an LSL source's `markers`", "StreamMatch"),
    ("[source.declare]", "DeclareConfig"),
    ("[[source.triggers]]", "TriggerConfig"),
    ("[processes]", "ProcessesConfig"),
    ("[realtime]", "RealtimeConfig"),
    ("[realtime.acquire]", "AcquireRealtime"),
    ("[realtime.decode]", "DecodeRealtime"),
    ("[bus]", "BusConfig"),
    ("[recording]", "RecorderConfig"),
    ("[pipelines.NAME]", "PipelineConfig"),
    ("[pipelines.NAME.triton]", "TritonConfig"),
    ("[pipelines.NAME.gaps]", "GapsConfig"),
    ("[[pipelines.NAME.blank]]", "BlankConfig"),
    ("[pipelines.NAME.quality]", "QualityConfig"),
    ("[[pipelines.NAME.windows]], sliding", "SlidingWindow"),
    ("[[pipelines.NAME.windows]], locked to markers", "LockedWindow"),
)


def schema() -> str:
    """The JSON Schema of the file."""
    found = Config.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(found, indent=2) + "\n"


def page() -> str:
    """The page that lists every key."""
    definitions = Config.model_json_schema()["$defs"]
    return _HEAD + "".join(part for heading, name in _TABLES for part in _table(heading, definitions[name]))


def _table(heading: str, section: dict[str, Any]) -> Iterator[str]:
    yield f"\n## `{heading}`\n\n" if heading.startswith("[") else f"\n## {heading[0].upper()}{heading[1:]}\n\n"
    yield " ".join(section["description"].split()).replace("``", "`") + "\n\n"
    yield "| key | default | |\n|---|---|---|\n"
    for key, value in section["properties"].items():
        text = " ".join(value.get("description", "").split()).replace("``", "`").replace("|", "\\|")
        if "enum" in value:
            text += " One of " + ", ".join(f"`{choice}`" for choice in value["enum"]) + "."
        yield f"| `{key}` | {_default(key, value, section)} | {text} |\n"


def _default(key: str, value: dict[str, Any], section: dict[str, Any]) -> str:
    if key in section.get("required", ()):
        return ""
    default = value.get("default")
    if default is None:
        return "absent"
    if default in ([], {}) or isinstance(default, dict):
        return "none"
    return f"`{json.dumps(default)}`"


if __name__ == "__main__":
    sys.stdout.write({"schema": schema, "page": page}[sys.argv[1]]())
