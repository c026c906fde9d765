"""``rtdecode check`` and the documents of the file."""

import json
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import bundles
import jsonschema
import pytest

from rtdecode.config import Config, load
from rtdecode.daemon.check import check
from rtdecode.daemon.reference import page, schema
from rtdecode.encode.bundle import write_bundle

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    write_bundle(tmp_path / "bundle", *bundles.parts())
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "session.toml"
    path.write_text(text)
    return path


def run_check(path: Path) -> tuple[int, dict[str, Any]]:
    found = subprocess.run(
        [sys.executable, "-m", "rtdecode", "check", str(path), "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert found.stdout, found.stderr
    return found.returncode, json.loads(found.stdout)


def test_nothing_is_wrong(folder: Path) -> None:
    path = write(
        folder,
        '[source]\nkind = "simulated"\n[pipelines.p]\nbundle = "bundle"\npublish = "tcp://127.0.0.1:0"\n'
        "[[pipelines.p.windows]]\nlength = 0.2\nhop = 0.1\n",
    )
    assert run_check(path) == (0, {"file": str(path), "ok": True, "problems": []})


@pytest.mark.parametrize(
    ("section", "place", "message"),
    [
        ('dir = "session.toml"', "recording.dir", "is no folder"),
        ('dir = "dangling"', "recording.dir", "is no folder"),
        ('dir = "a\\u0000b"', "recording.dir", "is no path"),
        ('dir = "new"\nmin_free_mb = 1e12', "recording.min_free_mb", "nothing would be recorded"),
        ('dir = "new"\nsubject = "' + "a" * 60 + '"', "recording.subject", "at most 48"),
        ('dir = "new"\nrun = 99999999999999', "recording.run", "1000000"),
    ],
)
def test_what_could_not_be_recorded(folder: Path, section: str, place: str, message: str) -> None:
    (folder / "dangling").symlink_to(folder / "nowhere")
    text = '[source]\nkind = "simulated"\n[pipelines.p]\nbundle = "bundle"\npublish = "tcp://127.0.0.1:0"\n'
    assert check(write(folder, f'{text}[recording]\ndir = "new/deeper"\n')) == []
    (problem,) = check(write(folder, f"{text}[recording]\n{section}\n"))
    assert problem.place == place
    assert message in problem.message
    assert not (folder / "new").exists()


@pytest.mark.parametrize(
    ("more", "place", "message"),
    [
        ("[pipelines.p.gaps]\nfill_ms = true", "pipelines.p.gaps.fill_ms", "is True; expected a number"),
        ('[bus]\nlog_seconds = "60"', "bus.log_seconds", "is '60'; expected a number"),
        ("[session]\nexit_at_end = 1", "session.exit_at_end", "is 1; expected true or false"),
        ("[realtime.acquire]\ncpus = [true]", "realtime.acquire.cpus", "is True; expected a number"),
        ("[bus]\nlog_seconds = 1e-9", "bus.log_seconds", "greater than or equal to 0.1"),
        ('[recording]\ndir = "r"\nqueue_mb = 1e-9', "recording.queue_mb", "greater than or equal to 0.1"),
        ("[session]\nhang_s = 1e300", "session.hang_s", "less than or equal to 3600"),
        ('[bus]\nshare = "tcp://*:5599"', "pipelines.p.publish", "the samples are shared"),
        ('[bus]\nshare = "tcp://127.0.0.1:5598"', "pipelines.p.publish", "questions about the shared samples"),
    ],
)
def test_values_of_the_wrong_kind_or_beyond_all_measure(folder: Path, more: str, place: str, message: str) -> None:
    text = '[source]\nkind = "simulated"\n[pipelines.p]\nbundle = "bundle"\npublish = "tcp://127.0.0.1:5599"\n'
    (problem,) = check(write(folder, text + more + "\n"))
    assert problem.place == place
    assert message in problem.message


@pytest.mark.parametrize(
    ("source", "place", "message"),
    [
        ('kind = "fieldtrip"\nhost = ""', "source.host", "is ''"),
        ('kind = "fieldtrip"\nhost = "a"\nsensors = "a.csv"', "source.sensors", "expected a FIF file"),
        (
            'kind = "zmq"\nbind = true\nendpoint = "tcp://127.0.0.1:5599"',
            "pipelines.p.publish",
            "the source listens",
        ),
    ],
)
def test_sources_that_could_not_be_used(folder: Path, source: str, place: str, message: str) -> None:
    text = f'[source]\n{source}\n[pipelines.p]\nbundle = "bundle"\npublish = "tcp://127.0.0.1:5599"\n'
    (problem,) = check(write(folder, text))
    assert problem.place == place
    assert message in problem.message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("queue = 5\nquantile = 0.5", "has queue, quantile without a budget"),
        ('on_late = "keep"', "has on_late without a budget"),
        ('on_late = "variant"\nvariant = "bundle"\nbudget_ms = 50', "variant is the bundle itself"),
    ],
)
def test_budget_keys_that_would_do_nothing(folder: Path, keys: str, message: str) -> None:
    text = '[source]\nkind = "simulated"\n[pipelines.p]\nbundle = "bundle"\npublish = "tcp://127.0.0.1:0"\n'
    (problem,) = check(write(folder, text + keys))
    assert problem.place == "pipelines.p"
    assert message in problem.message


def test_a_session_whose_name_no_folder_can_have(folder: Path) -> None:
    text = '[source]\nkind = "simulated"\n[pipelines.p]\nbundle = "bundle"\npublish = "tcp://127.0.0.1:0"\n'
    (problem,) = check(write(folder, f'[session]\nname = "{"x" * 400}"\n{text}'))
    assert problem.place == "session.name"


def test_everything_is_wrong(folder: Path) -> None:
    damaged = folder / "damaged"
    write_bundle(damaged, *bundles.parts(1))
    data = bytearray((damaged / "encoder.onnx").read_bytes())
    data[100] ^= 1
    (damaged / "encoder.onnx").write_bytes(data)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = write(
            folder,
            '[source]\nkind = "recording"\npath = "gone.edf"\n'
            f'[pipelines.a]\nbundle = "bundle"\npublish = "tcp://127.0.0.1:{port}"\nprovider = "tensorrt"\n'
            "[[pipelines.a.windows]]\nlength = 0.3\nhop = 0.1\n"
            '[[pipelines.a.windows]]\nname = "often"\nlength = 0.2\nhop = 0.001\n'
            '[pipelines.b]\nbundle = "damaged"\npublish = "tcp://127.0.0.1:0"\n'
            '[pipelines.c]\nbundle = "missing"\npublish = "tcp://127.0.0.1:0"\n',
        )
        code, report = run_check(path)
    assert code == 2
    found = {problem["place"]: problem["message"] for problem in report["problems"]}
    assert set(found) == {
        "source.path",
        "pipelines.a.windows[0]",
        "pipelines.a.windows[1]",
        "pipelines.a.provider",
        "pipelines.a.publish",
        "pipelines.b.bundle",
        "pipelines.c.bundle",
    }
    assert "30 samples at 100 Hz; expected 20 (0.2 s)" in found["pipelines.a.windows[0]"]
    assert "expected at least one sample, 0.01 s at 100 Hz" in found["pipelines.a.windows[1]"]
    assert "encoder.onnx" in found["pipelines.b.bundle"]
    assert "in use" in found["pipelines.a.publish"]


def test_config_problems_come_with_their_lines_in_json_and_in_text(folder: Path) -> None:
    path = write(folder, '[source]\nkind = "simulated"\nspeeed = 2\n')
    code, report = run_check(path)
    assert code == 2
    (problem,) = report["problems"]
    assert problem["place"] == "source.speeed"
    assert problem["line"] == 3
    text = subprocess.run(
        [sys.executable, "-m", "rtdecode", "check", str(path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert text.returncode == 2
    assert "source.speeed (line 3): unknown key, did you mean 'speed'?" in text.stderr


def test_a_simulation_that_makes_no_sense_and_no_pipeline(folder: Path) -> None:
    code, report = run_check(write(folder, '[source]\nkind = "simulated"\nsoa = 0.1\n'))
    assert code == 2
    assert [problem["place"] for problem in report["problems"]] == ["source", "pipelines"]


def test_the_documents_are_those_of_the_code() -> None:
    how = "python -m rtdecode.daemon.reference"
    assert (ROOT / "docs" / "config.schema.json").read_text() == schema(), f"{how} schema > docs/config.schema.json"
    assert (ROOT / "docs" / "configuration.md").read_text() == page(), f"{how} page > docs/configuration.md"


def test_the_page_names_every_key() -> None:
    text = page()
    for name, section in Config.model_json_schema()["$defs"].items():
        for key, value in section["properties"].items():
            assert f"| `{key}` |" in text, f"{name}.{key}"
            assert value.get("description"), f"{name}.{key} says nothing about itself"


@pytest.mark.parametrize("path", [ROOT / "deploy" / "lab.toml"], ids=lambda path: path.name)
def test_the_examples_are_valid_by_the_code_and_by_the_schema(path: Path) -> None:
    load(path)
    jsonschema.validate(tomllib.loads(path.read_text()), json.loads(schema()))


def test_the_schema_refuses_what_the_code_refuses() -> None:
    data = tomllib.loads((ROOT / "deploy" / "lab.toml").read_text())
    data["pipelines"]["main"]["budget"] = 50
    with pytest.raises(jsonschema.ValidationError, match="budget"):
        jsonschema.validate(data, json.loads(schema()))
