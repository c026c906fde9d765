"""Where and how a session is recorded."""

from dataclasses import dataclass
from pathlib import Path

from rtdecode.record.names import Entities


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and how to record.

    Parameters
    ----------
    folder : Path
        Where the files go; made if it is not there.
    entities : Entities
        Their names.
    flush_s : float
        Seconds between writes: what a kill may cost.
    sync_s : float
        Seconds between writes to the medium: what a power cut may cost; 0 leaves it to the system.
    min_free : int
        Bytes that stay free on the disk.
    queue : int
        Bytes of samples that may wait, for the thread or for room on the disk.
    start : bool
        Record from the start, or wait for `Recorder.start`.
    """

    folder: Path
    entities: Entities
    flush_s: float = 0.25
    sync_s: float = 10.0
    min_free: int = 50_000_000
    queue: int = 64_000_000
    start: bool = True
