"""What a pipeline may say about where its windows are encoded."""

from pathlib import Path

import pytest

from rtdecode.config import InvalidConfigError, load
from rtdecode.config.server import triton_server

HEAD = '[source]\nkind = "simulated"\n[pipelines.p]\nbundle = "b"\npublish = "tcp://127.0.0.1:0"\n'
SERVER = '[pipelines.p.triton]\nurl = "127.0.0.1:8001"\nmodel = "gaze"\n'


def read(tmp_path: Path, text: str):
    path = tmp_path / "session.toml"
    path.write_text(HEAD + text)
    return load(path).pipelines["p"]


def test_a_server_as_the_engine_takes_it(tmp_path):
    assert triton_server(read(tmp_path, "")) is None
    more = 'version = "3"\ntimeout_ms = 20\nshared_memory = "off"\ntls = true\nca = "ca.pem"\n'
    server = triton_server(read(tmp_path, 'engine = "triton"\nfallback = "allow"\n' + SERVER + more))
    assert server is not None
    assert (server.url, server.model, server.version, server.timeout_s) == ("127.0.0.1:8001", "gaze", "3", 0.02)
    assert (server.shared_memory, server.tls, server.ca, server.key) == ("off", True, tmp_path / "ca.pem", None)


def test_options_keep_their_types(tmp_path):
    text = 'provider = "cuda"\n[pipelines.p.options]\ndevice_id = 1\nuse_tf32 = true\nsdpa = 1.5\nname = "x"\n'
    options = read(tmp_path, text).options
    assert options == {"device_id": 1, "use_tf32": True, "sdpa": 1.5, "name": "x"}
    assert [type(value) for value in options.values()] == [int, bool, float, str]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('engine = "triton"\n', "has no server; expected both"),
        (SERVER, "has a server, and engine is 'local'"),
        ('engine = "triton"\nprovider = "cuda"\n' + SERVER, "with provider = 'cuda'.*expected no provider"),
        ('engine = "triton"\n' + SERVER.replace("127.0.0.1:8001", "http://here:8001"), "expected HOST:PORT"),
        ('engine = "triton"\n' + SERVER.replace(":8001", ""), "expected HOST:PORT"),
        ('engine = "triton"\n' + SERVER + 'ca = "ca.pem"\n', "has ca without tls"),
        ('engine = "triton"\n' + SERVER + 'tls = true\nkey = "key.pem"\n', "one of certificate and key"),
        ('engine = "triton"\n' + SERVER + "timeout_ms = 0\n", "timeout_ms"),
    ],
)
def test_half_a_server_is_refused(tmp_path, text, message):
    with pytest.raises(InvalidConfigError, match=message):
        read(tmp_path, text)
