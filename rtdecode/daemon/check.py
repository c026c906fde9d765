"""Everything that can be known to be wrong with a session before it is started."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import zmq

from rtdecode.config import (
    Config,
    FieldTripConfig,
    InvalidConfigError,
    PipelineConfig,
    Problem,
    RecordingConfig,
    SimulatedConfig,
    load,
)
from rtdecode.config.handling import handling
from rtdecode.config.processes import layout
from rtdecode.daemon.admission import Admission, policy
from rtdecode.daemon.endpoints import endpoints
from rtdecode.daemon.model import verified
from rtdecode.daemon.rpc import bind
from rtdecode.daemon.shelf import Shelf
from rtdecode.daemon.sources import make_source
from rtdecode.encode.bundle import Bundle
from rtdecode.encode.onnx import import_onnxruntime
from rtdecode.encode.providers import check_options, find_provider
from rtdecode.encode.variant import check_variant
from rtdecode.errors import RtdecodeError
from rtdecode.signal import Channel, StreamInfo
from rtdecode.stream.tools import tools


def check(path: Path) -> list[Problem]:
    """Every problem of a configuration and of what it names; empty where a session can be started.

    Looked at: the file, the source (a recording's existence, a simulation's settings), each bundle (files, hashes,
    consistency), its windows, its provider, whether the endpoints and the folder of the recordings are to be had; and
    then, where too much is refused, whether each process can do in time what it is given. Not looked at: what only a
    start shows, that is the stream's channels, and the golden windows (``rtdecode bundle verify`` runs them).
    """
    try:
        config = load(path)
    except InvalidConfigError as error:
        return error.problems
    problems = [*_source(config), *_recording(config)]
    for name, pipeline in config.pipelines.items():
        problems += _pipeline(f"pipelines.{name}", pipeline)
    if not config.pipelines:
        problems.append(Problem("pipelines", "there is none; expected at least one [pipelines.NAME]"))
    problems += _endpoints(config)
    return problems or list(_load(config))


def _source(config: Config) -> Iterator[Problem]:
    for name, source in config.inputs.items():
        place = f"sources.{name}" if name else "source"
        if isinstance(source, RecordingConfig):
            if not source.path.is_file():
                yield Problem(f"{place}.path", f"{source.path} does not exist or is no file")
            elif importlib.util.find_spec("mne") is None and source.path.suffix.lower() not in (".xdf", ".xdfz"):
                yield Problem(f"{place}.path", "reading it needs MNE; pip install rtdecode[files]")
        if isinstance(source, FieldTripConfig) and source.sensors is not None and not source.sensors.is_file():
            yield Problem(f"{place}.sensors", f"{source.sensors} does not exist or is no file")
        if isinstance(source, SimulatedConfig):
            try:
                make_source(source)
            except RtdecodeError as error:
                yield Problem(place, str(error))


def _pipeline(place: str, pipeline: PipelineConfig) -> Iterator[Problem]:
    try:
        bundle = Bundle.open(pipeline.bundle)
    except RtdecodeError as error:
        yield Problem(f"{place}.bundle", str(error))
    else:
        yield from _windows(place, pipeline, bundle)
        if pipeline.variant is not None:
            try:
                check_variant(bundle, Bundle.open(pipeline.variant))
            except RtdecodeError as error:
                yield Problem(f"{place}.variant", str(error))
        yield from _handling(place, pipeline, bundle)
    yield from _provider(place, pipeline)


def _windows(place: str, pipeline: PipelineConfig, bundle: Bundle) -> Iterator[Problem]:
    """Windows given here must be as long as the bundle's own: its encoder takes no others."""
    sfreq = bundle.conditioner().sfreq
    expected = bundle.manifest.windows[0].n_samples(sfreq)
    for n, window in enumerate(pipeline.window_specs()):
        if (fault := window.fault(sfreq)) is not None:
            yield Problem(f"{place}.windows[{n}]", fault)
        found = window.n_samples(sfreq)
        if found != expected:
            seconds = float(Fraction(expected) / Fraction(sfreq))
            yield Problem(
                f"{place}.windows[{n}]",
                f"{window.duration:g} s are {found} samples at {sfreq:g} Hz; expected {expected} ({seconds:g} s), "
                "which is what the bundle's encoder takes",
            )


def _handling(place: str, pipeline: PipelineConfig, bundle: Bundle) -> Iterator[Problem]:
    """Blanking, quality and interpolation must fit the channels of the bundle's contract."""
    contract = bundle.manifest.contract
    channels = [Channel(channel.name, channel.type, channel.unit) for channel in contract.channels]
    try:
        tools(handling(pipeline), channels, contract.sfreq)
    except RtdecodeError as error:
        yield Problem(place, str(error))
    if pipeline.quality.max_bad >= len(channels):
        yield Problem(
            f"{place}.quality.max_bad",
            f"is {pipeline.quality.max_bad} of {len(channels)} channels: a window with none that is good would be ok; "
            f"expected at most {len(channels) - 1}",
        )


def _load(config: Config) -> Iterator[Problem]:
    """Pipelines that would be refused at the start, on streams that are what their contracts say."""
    if policy(config) != "refuse":
        return
    shelf = Shelf()
    for host in layout(config).decode:
        admission = Admission(config, host.name)
        for name in host.members:
            pipeline = config.pipelines[name]
            try:
                opened = verified(pipeline.bundle, pipeline, shelf)
                contract = opened.bundle.manifest.contract
                channels = tuple(Channel(one.name, one.type, one.unit) for one in contract.channels)
                load = admission.known(opened, pipeline, StreamInfo(channels, contract.sfreq, "the contract"))
                opened.engine.close()
                admission.take(name, load)
            except RtdecodeError as error:
                yield Problem(f"pipelines.{name}", str(error))


def _recording(config: Config) -> Iterator[Problem]:
    """The folder of the recordings, or the one that it would be made in, takes files."""
    if config.recording is None:
        return
    there = config.recording.dir
    if "\0" in str(there):
        yield Problem("recording.dir", f"{str(there)!r} is no path: it holds a null character")
        return
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        yield Problem("recording.dir", f"{there} is no folder; expected one that takes files, or none yet")
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Problem("recording.dir", f"{there} cannot be written to; expected a folder that takes files")
    elif (free := shutil.disk_usage(there).free) < config.recording.min_free_mb * 1e6:
        yield Problem(
            "recording.min_free_mb",
            f"is {config.recording.min_free_mb:g}, and {free / 1e6:.0f} MB are free at {there}: "
            "nothing would be recorded; expected less",
        )


def _provider(pipeline_place: str, pipeline: PipelineConfig) -> Iterator[Problem]:
    place = f"{pipeline_place}.provider"
    provider = find_provider(pipeline.provider)
    install = f'pip install "rtdecode[{provider.extra}]"'
    try:
        check_options(provider, pipeline.options)
    except RtdecodeError as error:
        yield Problem(f"{pipeline_place}.options", str(error))
    if pipeline.triton is not None and importlib.util.find_spec("grpc") is None:
        yield Problem(f"{pipeline_place}.engine", 'grpcio is not installed; pip install "rtdecode[triton]"')
    if provider.name in ("openvino", "tensorrt-native"):
        module = provider.runtime_name
        if importlib.util.find_spec(module) is None and pipeline.fallback == "forbid":
            yield Problem(place, f"{module} is not installed; {install}")
        return
    if importlib.util.find_spec("onnxruntime") is None:
        yield Problem(place, f"no inference runtime is installed; {install}")
        return
    if provider.runtime_name not in import_onnxruntime().get_available_providers() and pipeline.fallback == "forbid":
        yield Problem(place, f"this onnxruntime has no {provider.name}; {install}")


def _endpoints(config: Config) -> Iterator[Problem]:
    """Bind each address once, and let go of it."""
    found = endpoints(config)
    seen: dict[str, str] = {}
    for name, pipeline in config.pipelines.items():  # those of one process may share one
        seen.setdefault(pipeline.publish, f"pipelines.{name}.publish")
    places = {place: endpoint for endpoint, place in seen.items()}
    own = found.all if found.samples.startswith("tcp://") or found.folder.is_dir() else ()
    with zmq.Context() as context:
        for place, endpoint in [*places.items(), *(("bus", one) for one in own)]:
            socket = context.socket(zmq.PUB)
            socket.setsockopt(zmq.LINGER, 0)
            try:
                bind(socket, endpoint.removesuffix(":0") + ":*" if endpoint.endswith(":0") else endpoint)
            except RtdecodeError as error:
                yield Problem(place, str(error))
            else:
                socket.close()
