"""Several sources in one file: what stands for what, which process has what, and every fault with its place."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rtdecode.config import Config, InvalidConfigError, parse
from rtdecode.config.processes import layout

HERE = Path(Path.cwd().anchor) / "session.toml"


def text(
    sources: str = "ab", pipeline: str = 'source = "*"', more: str = "", publish: str = "tcp://127.0.0.1:5600"
) -> str:
    tables = "".join(f'[sources.{name}]\nkind = "simulated"\n' for name in sources)
    return f'{tables}{more}\n[pipelines.p]\nbundle = "x"\npublish = "{publish}"\n{pipeline}\n'


def problems(of: str) -> dict[str, str]:
    with pytest.raises(InvalidConfigError) as caught:
        parse(of, HERE)
    return {problem.place: problem.message for problem in caught.value.problems}


def test_a_pipeline_on_all_sources_is_one_on_each() -> None:
    config = parse(text("abc", more="[processes]\ndecode = 1"), HERE)
    assert {name: pipeline.source for name, pipeline in config.pipelines.items()} == {
        "p-a": "a",
        "p-b": "b",
        "p-c": "c",
    }
    assert {pipeline.publish for pipeline in config.pipelines.values()} == {"tcp://127.0.0.1:5600"}
    assert [host.members for host in layout(config).decode] == [("p-a", "p-b", "p-c")]
    assert config.source_of("p-b") is config.sources["b"]


def test_a_pipeline_in_several_processes_takes_an_endpoint_in_each() -> None:
    config = parse(text("abcd", more="[processes]\ndecode = 2"), HERE)
    ports = [pipeline.publish.rpartition(":")[2] for pipeline in config.pipelines.values()]
    assert ports == ["5600", "5600", "5601", "5601"]
    paths = [one.publish for one in parse(text("ab", publish="ipc://out"), HERE).pipelines.values()]
    assert paths == [f"ipc://{HERE.parent / 'out'}", f"ipc://{HERE.parent / 'out.2'}"]


def test_the_single_form_is_as_it_was() -> None:
    config = parse('[source]\nkind = "simulated"\n[pipelines.p]\nbundle = "x"\npublish = "ipc://p"\n', HERE)
    assert list(config.inputs) == [""]
    assert [host.name for host in (*layout(config).acquire, *layout(config).decode)] == ["acquire", "p"]


@pytest.mark.parametrize(
    ("of", "place", "words"),
    [
        (text(pipeline=""), "pipelines.p.source", "expected one of a, b"),
        (text(pipeline='source = "c"'), "pipelines.p.source", "there are: a, b"),
        (text(pipeline='source = ["a", "a"]'), "pipelines.p.source", "each once"),
        (text("a") + '[source]\nkind = "simulated"\n', "", "has both"),
        (text("")[1:], "", "source is missing"),
        (text("a").replace("simulated", "simulate"), "sources.a.kind", "did you mean 'simulated'?"),
        (text("a") + "[sources.lsl]\nkind = 'lsl'\nname = 'x'\ntimout_s = 2\n", "sources.lsl.timout_s", "'timeout_s'"),
        (text("a") + "[sources.'x.y']\nkind = 'simulated'\n", "sources.x.y", "no dots"),
        (text("ab", more="[processes]\ndecod = 1"), "processes.decod", "did you mean 'decode'?"),
        (text("ab", publish="tcp://127.0.0.1:65535"), "pipelines.p.publish", "expected a lower one"),
        (text("ab", more='[bus]\nshare = "tcp://127.0.0.1:5700"'), "bus.share", "shares one source"),
        (
            text("ab") + '[pipelines.p-a]\nbundle = "x"\npublish = "ipc://q"\nsource = "a"\n',
            "pipelines.p",
            "two pipelines would be called 'p-a'",
        ),
        (
            text("ab", 'source = "a"')
            + '[pipelines.q]\nbundle = "x"\npublish = "tcp://127.0.0.1:5600"\nsource = "b"\n',
            "pipelines.q.publish",
            "in another process (p)",
        ),
        (
            '[sources.a-b]\nkind = "simulated"\n[sources.ab]\nkind = "simulated"\n[recording]\ndir = "r"\n',
            "sources.ab",
            "rename one",
        ),
    ],
)
def test_faults_have_their_place(of: str, place: str, words: str) -> None:
    found = problems(of)
    assert place in found, found
    assert words in found[place]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.booleans())
def test_everything_has_one_process_and_neighbours_stay_together(n: int, k: int, own: int, twice: bool) -> None:
    names = [f"s{one}" for one in range(n)]
    sources = "".join(f'[sources.{name}]\nkind = "simulated"\n' for name in names)
    pipeline = 'bundle = "x"\npublish = "tcp://127.0.0.1:0"\nsource = "*"\n'
    tables = f"[pipelines.p]\n{pipeline}" + (f"[pipelines.q]\n{pipeline}" if twice else "")
    config: Config = parse(f"{sources}[processes]\nacquire = {own}\ndecode = {k}\n{tables}", HERE)
    hosts = layout(config)
    assert [source for host in hosts.acquire for source in host.members] == names
    assert sorted(name for host in hosts.decode for name in host.members) == sorted(config.pipelines)
    assert len(hosts.decode) == min(k, len(config.pipelines))
    assert len(hosts.acquire) == min(own, n)
    if k <= n:
        for name in names:
            assert len({hosts.decode_of(one).name for one in config.pipelines if one.endswith(f"-{name}")}) == 1
