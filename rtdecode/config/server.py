"""The server that a pipeline's configuration names, as the engine takes it."""

from rtdecode.config.sections import PipelineConfig
from rtdecode.encode.kserve import TritonServer


def triton_server(pipeline: PipelineConfig) -> TritonServer | None:
    """The Triton server that encodes a pipeline's windows; None where they are encoded here."""
    named = pipeline.triton
    if named is None:
        return None
    return TritonServer(
        url=named.url,
        model=named.model,
        version=named.version,
        timeout_s=named.timeout_ms / 1e3,
        shared_memory=named.shared_memory,
        tls=named.tls,
        ca=named.ca,
        certificate=named.certificate,
        key=named.key,
    )
