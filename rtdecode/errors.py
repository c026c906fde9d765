"""The errors of rtdecode, and the exit code of each.

::

    RtdecodeError                 1   (base; never raised itself)
    ├── ConfigError               2   the TOML file or a command's arguments
    │   └── AdmissionError        2   a pipeline that would be more than its process or the machine can do
    ├── SourceError               3   a stream or a recording
    │   ├── StreamNotFoundError   3   nothing matched within the timeout
    │   ├── RecordingError        3   a file that is empty, cut short or unreadable
    │   └── StampError            3   stamps that stand still or run backwards
    ├── ContractError             4   a stream that a bundle cannot decode
    ├── BundleError               5   a bundle that is damaged, inconsistent or of another version
    │   └── GoldenError           5   golden windows that disagree on this machine
    ├── EngineError               6   the inference runtime
    │   ├── ProviderError         6   a provider that is unknown or not to be had
    │   └── EncodeError           6   one window failed (recoverable: that window is `failed`)
    ├── WireError                 7   a message or an endpoint
    │   └── PortInUseError        7   another process holds the address
    ├── ProcessError              8   a process of the daemon that died or does not answer
    └── NotRecordedError          9   samples that were to be recorded and were not

Every error names what is at fault, what was expected and what to do. The command line prints the message without a
traceback and exits with the code; anything else that escapes is a bug and exits with 70 and a traceback.
"""

from typing import ClassVar


class RtdecodeError(Exception):
    """Base of all errors that a user can do something about."""

    exit_code: ClassVar[int] = 1


class ConfigError(RtdecodeError):
    """The configuration, or an argument of a command, is wrong."""

    exit_code = 2


class AdmissionError(ConfigError):
    """A pipeline is refused, since it and those before it are predicted to be more than can be done in time."""


class SourceError(RtdecodeError):
    """A stream or a recording cannot be read as it is."""

    exit_code = 3


class StreamNotFoundError(SourceError):
    """No stream matched within the timeout."""


class RecordingError(SourceError):
    """A recording is empty, cut short or of an unknown format."""


class StampError(SourceError):
    """Time stamps stand still, run backwards or do not match the samples."""


class ContractError(RtdecodeError):
    """A stream does not meet a bundle's input contract."""

    exit_code = 4


class BundleError(RtdecodeError):
    """A bundle is damaged, inconsistent or of an unknown version."""

    exit_code = 5


class GoldenError(BundleError):
    """A bundle's golden windows do not come out as expected on this machine."""


class EngineError(RtdecodeError):
    """The inference runtime cannot do what was asked."""

    exit_code = 6


class ProviderError(EngineError):
    """An execution provider is unknown, not installed, or not the one that was asked for."""


class EncodeError(EngineError):
    """One window could not be encoded. Recoverable: the window is published as `failed`."""


class WireError(RtdecodeError):
    """A message cannot be read, or an endpoint cannot be used."""

    exit_code = 7


class PortInUseError(WireError):
    """Another process holds the address."""


class ProcessError(RtdecodeError):
    """A process of the daemon died or does not answer."""

    exit_code = 8


class NotRecordedError(RtdecodeError):
    """A session has ended, and samples that were to be recorded were not."""

    exit_code = 9
