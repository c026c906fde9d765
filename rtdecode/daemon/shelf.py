"""Bundles that several pipelines of one process have in common: read and proven once, and in memory once."""

from pathlib import Path

from rtdecode.config import PipelineConfig
from rtdecode.encode.bundle import Bundle


class Shelf:
    """What was opened while a process starts. A swap opens its bundle anew, since the file may have changed."""

    def __init__(self) -> None:
        self._bundles: dict[Path, Bundle] = {}
        self._proven: set[tuple[object, ...]] = set()

    def bundle(self, path: Path) -> Bundle:
        """The bundle at a path; raises what `Bundle.open` raises."""
        if path not in self._bundles:
            self._bundles[path] = Bundle.open(path)
        return self._bundles[path]

    def proven(self, bundle: Bundle, pipeline: PipelineConfig) -> bool:
        """Whether this encoder has given its golden outputs in this process, with the same settings."""
        return self._key(bundle, pipeline) in self._proven

    def prove(self, bundle: Bundle, pipeline: PipelineConfig) -> None:
        """It has."""
        self._proven.add(self._key(bundle, pipeline))

    @staticmethod
    def _key(bundle: Bundle, pipeline: PipelineConfig) -> tuple[object, ...]:
        # The engine is made of these; its session is the same one (`rtdecode.encode.sessions`).
        made_of = pipeline.model_dump(exclude={"source", "publish", "hwm", "budget_ms", "on_late", "queue", "quantile"})
        return bundle.id, repr(made_of)
