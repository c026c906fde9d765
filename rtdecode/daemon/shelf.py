"""What several pipelines of one process have in common: bundles, read and proven once, and prefixes, run once."""

import hashlib
from pathlib import Path

import msgspec

from rtdecode.config import PipelineConfig
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.prefix_pool import Company, PrefixPool

#: What a pipeline's configuration says that decides its conditioned samples.
_HANDLING = ("channels", "gaps", "blank", "bad", "interpolation")


class Shelf:
    """What was opened while a process starts. A swap opens its bundle anew, since the file may have changed."""

    def __init__(self) -> None:
        self._bundles: dict[Path, Bundle] = {}
        self._proven: set[tuple[object, ...]] = set()
        #: Prefixes of encoders that work while they listen.
        self.prefixes = PrefixPool()

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

    def company(self, bundle: Bundle, pipeline: PipelineConfig, name: str) -> Company:
        """Where a pipeline's engine looks for others that hear the same samples.

        It compares them with whoever reads the same source, and makes the same of it by all that is declared.
        """
        assert isinstance(pipeline.source, str)
        manifest = bundle.manifest
        steps = manifest.conditioning.stream
        named = {str(value) for step in steps for value in msgspec.structs.asdict(step).values()}
        arrays = [bundle.files[file] for file in sorted(named & bundle.files.keys())]
        handling = pipeline.model_dump_json(include=set(_HANDLING))
        what = hashlib.sha256(msgspec.json.encode((manifest.contract, steps, arrays, handling))).hexdigest()
        return Company(self.prefixes, f"{pipeline.source}/{what}", name)

    @staticmethod
    def _key(bundle: Bundle, pipeline: PipelineConfig) -> tuple[object, ...]:
        # The engine is made of these; its session is the same one (`rtdecode.encode.sessions`).
        made_of = pipeline.model_dump(exclude={"source", "publish", "hwm", "budget_ms", "on_late", "queue", "quantile"})
        return bundle.id, repr(made_of)
