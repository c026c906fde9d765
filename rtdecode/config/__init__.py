"""One TOML file that says everything about a session, and every problem in it at once.

`load` needs neither liblsl, MNE nor an inference runtime: what a file says can be checked on any machine.
"""

from rtdecode.config.load import load, parse
from rtdecode.config.problems import InvalidConfigError, Problem
from rtdecode.config.sections import (
    BusConfig,
    Config,
    FieldTripConfig,
    LslConfig,
    PipelineConfig,
    RecordingConfig,
    SessionConfig,
    SimulatedConfig,
    SourceConfig,
    ZmqConfig,
)

__all__ = [
    "BusConfig",
    "Config",
    "FieldTripConfig",
    "InvalidConfigError",
    "LslConfig",
    "PipelineConfig",
    "Problem",
    "RecordingConfig",
    "SessionConfig",
    "SimulatedConfig",
    "SourceConfig",
    "ZmqConfig",
    "load",
    "parse",
]
