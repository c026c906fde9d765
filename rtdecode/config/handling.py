"""What a pipeline's configuration says about missing and bad samples, as the decoder takes it."""

from collections.abc import Mapping

from rtdecode.config.sections import PipelineConfig
from rtdecode.encode.arrays import read_array
from rtdecode.errors import BundleError, ConfigError
from rtdecode.stream.handling import Blank, Fill, Handling, Interpolation, Limit, Limits


def handling(pipeline: PipelineConfig) -> Handling:
    """Fill, blanks, limits and interpolation of a pipeline.

    Raises
    ------
    ConfigError
        The file of the interpolation matrix cannot be read, or holds no numbers.
    """
    gaps, quality = pipeline.gaps, pipeline.quality
    return Handling(
        fill=Fill(gaps.fill_ms / 1e3, gaps.method) if gaps.fill_ms else None,
        blanks=tuple(
            Blank(blank.markers, blank.tmin, blank.tmax, blank.method, blank.channels) for blank in pipeline.blank
        ),
        limits=Limits(_limit(quality.flat), quality.clip, _limit(quality.range), quality.max_bad),
        interpolation=_interpolation(pipeline),
    )


def _limit(value: float | Mapping[str, float] | None) -> Limit | None:
    return dict(value) if isinstance(value, Mapping) else value


def _interpolation(pipeline: PipelineConfig) -> Interpolation | None:
    path = pipeline.interpolation
    if path is None:
        return None
    try:
        matrix = read_array(path.read_bytes(), str(path))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"interpolation {path} cannot be read: {reason}; expected a .npy file") from error
    except BundleError as error:
        raise ConfigError(f"interpolation: {error}") from error
    return Interpolation(pipeline.bad, matrix.astype("float64"), str(path))
