"""One TOML file: every problem at once, each with its place and line."""

import os
import string
import subprocess
import sys
import tomllib
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rtdecode.config import InvalidConfigError, LslConfig, Problem, RecordingConfig, load, parse
from rtdecode.errors import ConfigError
from rtdecode.stream.window import Locked, Sliding

GOOD = """\
[session]
name = "demo"
[source]
kind = "lsl"
name = "BrainAmp"
markers = [{ name = "Keys" }]
[source.declare]
unit = "uV"
[[source.triggers]]
channel = "STI101"
mask = 255
[pipelines.gaze]
bundle = "bundles/gaze"
publish = "tcp://127.0.0.1:5555"
budget_ms = 50
[[pipelines.gaze.windows]]
length = 1.0
hop = 0.05
[[pipelines.gaze.windows]]
tmin = -0.2
tmax = 0.8
markers = ["face/*"]
"""


def problems(text: str, folder: Path = Path("/nowhere")) -> dict[str, Problem]:
    with pytest.raises(InvalidConfigError) as caught:
        parse(text, folder / "session.toml")
    assert str(caught.value).count("\n") == len(caught.value.problems)
    return {problem.place: problem for problem in caught.value.problems}


def test_a_good_one(tmp_path: Path) -> None:
    config = parse(GOOD, tmp_path / "session.toml")
    source = config.source
    assert isinstance(source, LslConfig)
    assert source.markers[0].name == "Keys"
    assert source.triggers[0].rule().mask == 255
    assert source.declare.declare().unit == "uV"
    gaze = config.pipeline("gaze")
    assert gaze.bundle == tmp_path / "bundles" / "gaze"
    assert gaze.window_specs() == (
        Sliding(length=1.0, hop=0.05),
        Locked(tmin=-0.2, tmax=0.8, markers=("face/*",)),
    )
    with pytest.raises(ConfigError, match="did you mean 'gaze'"):
        config.pipeline("gase")


def test_paths_are_taken_from_the_file_s_folder(tmp_path: Path) -> None:
    text = """
    [source]
    kind = "recording"
    path = "data/S001R14.edf"
    [pipelines.a]
    bundle = "/absolute/bundle.zip"
    publish = "ipc://out/a"
    """
    (tmp_path / "out").mkdir()
    (tmp_path / "session.toml").write_text(text)
    config = load(tmp_path / "session.toml")
    assert isinstance(config.source, RecordingConfig)
    assert config.source.path == tmp_path / "data" / "S001R14.edf"
    assert config.pipelines["a"].bundle == Path("/absolute/bundle.zip")
    assert config.pipelines["a"].publish == f"ipc://{tmp_path}/out/a"
    assert config.path == tmp_path / "session.toml"


def test_everything_at_once_each_with_its_place_and_line() -> None:
    text = """\
[session]
nmae = "x"
[source]
kind = "lsl"
name = "a"
timeout_s = -1
[[source.triggers]]
channel = "A"
[[source.triggers]]
channel = "B"
edge = "up"
[pipelines.gaze]
bundel = "x"
publish = "tcp://127.0.0.1:5555"
budget_ms = "fast"
provider = "gpu"
[pipelines.words]
bundle = "x"
publish = "udp://5555"
[[pipelines.words.windows]]
length = 1.0
hopp = 0.5
[[pipelines.words.windows]]
tmin = 1.0
tmax = 0.0
markers = []
"""
    found = problems(text)
    expected = {
        "session.nmae": (2, "'name'"),
        "source.timeout_s": (6, "greater than 0"),
        "source.triggers[1].edge": (11, "'rising', 'falling' or 'change'"),
        "pipelines.gaze.bundle": (12, "is missing"),
        "pipelines.gaze.bundel": (13, "'bundle'"),
        "pipelines.gaze.budget_ms": (15, "number"),
        "pipelines.gaze.provider": (16, "'cuda'"),
        "pipelines.words.publish": (19, "tcp://HOST:PORT"),
        "pipelines.words.windows[0].hop": (20, "is missing"),
        "pipelines.words.windows[0].hopp": (22, "'hop'"),
        "pipelines.words.windows[1].markers": (26, "at least 1"),
    }
    assert set(found) == set(expected)
    for place, (line, word) in expected.items():
        assert found[place].line == line, place
        assert word in found[place].message, place


@pytest.mark.parametrize(
    ("change", "place", "word"),
    [
        (('kind = "lsl"', 'kind = "ls"'), "source.kind", "'lsl'"),
        (('kind = "lsl"', ""), "source.kind", "lsl, zmq, fieldtrip, recording or simulated"),
        (('name = "BrainAmp"', ""), "source", "at least one of name, type and source_id"),
        (("pipelines.gaze", 'pipelines."gaze.left"'), "pipelines.gaze.left", "no dots"),
        (("pipelines.gaze", "pipelines.acquire"), "pipelines.acquire", "another name"),
        (("127.0.0.1:5555", "127.0.0.1"), "pipelines.gaze.publish", "tcp://HOST:PORT"),
        (("tcp://127.0.0.1:5555", "ipc:///not/there/x"), "pipelines.gaze.publish", "does not exist"),
        (("tmax = 0.8", "tmax = -0.2"), "pipelines.gaze.windows[1]", "more than tmin"),
        (("hop = 0.05", "hop = nan"), "pipelines.gaze.windows[0].hop", "finite"),
        (("hop = 0.05", "hop = 0.05\ntmin = 1"), "pipelines.gaze.windows[0].tmin", "known here: length, hop, name"),
        (('name = "demo"', 'name = "a/b"'), "session.name", "'a/b'"),
        (("[source.declare]", "[source.declares]"), "source.declares", "'declare'"),
    ],
)
def test_one_thing_wrong(change: tuple[str, str], place: str, word: str) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    found = problems(text)
    assert word in found[place].message


def test_two_windows_of_one_name_are_told_apart_by_none() -> None:
    found = problems(GOOD + "[[pipelines.gaze.windows]]\nlength = 2\nhop = 1\n")
    assert "sliding occurs twice" in found["pipelines.gaze"].message


def test_two_pipelines_cannot_publish_in_one_place() -> None:
    again = '[pipelines.words]\nbundle = "b"\npublish = "tcp://127.0.0.1:5555"\n'
    found = problems(GOOD + again)
    assert "'gaze'" in found["pipelines.words.publish"].message
    assert found["pipelines.words.publish"].line == GOOD.count("\n") + 3
    anywhere = (GOOD + again).replace(":5555", ":0")
    assert len(parse(anywhere, Path("/nowhere/session.toml")).pipelines) == 2


def test_what_is_no_toml_names_the_line(tmp_path: Path) -> None:
    found = problems("[source]\nkind = lsl\n")
    assert found[""].line == 2
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "binary.toml")


@given(
    st.sampled_from(["session", "source", "source.declare", "bus", "pipelines.gaze"]),
    st.text(string.ascii_lowercase + "_", min_size=1, max_size=12),
)
def test_an_unknown_key_is_found_wherever_it_is(table: str, key: str) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith("[bus]")) + "\n[bus]\n"
    at = text.index(f"[{table}]\n") + len(f"[{table}]\n")
    text = f"{text[:at]}{key} = '?'\n{text[at:]}"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # a key that is there already
        return
    found = problems(text)
    assert f"{table}.{key}" in found
    assert found[f"{table}.{key}"].line == text[:at].count("\n") + 1


@given(st.text(max_size=300))
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    with pytest.raises(InvalidConfigError):
        parse(text, Path("/nowhere/session.toml"))


def test_a_configuration_is_read_without_what_a_session_needs(tmp_path: Path) -> None:
    (tmp_path / "session.toml").write_text(GOOD)
    code = (
        "import sys\n"
        "for name in ('pylsl', 'mne', 'pyxdf', 'onnxruntime', 'torch', 'zmq'): sys.modules[name] = None\n"
        "from rtdecode.config import load\n"
        "print(load(sys.argv[1]).session.name)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "session.toml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert found.stdout == "demo\n", found.stderr
