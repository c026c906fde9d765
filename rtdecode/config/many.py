"""Several sources, and pipelines that stand for one on each of them: `load` makes them plain ones."""

from collections.abc import Iterator, Mapping

from rtdecode.config.problems import Problem, suggest
from rtdecode.config.processes import layout
from rtdecode.config.sections import Config, PipelineConfig

#: Stands for all sources.
ALL = "*"

#: Letters of a name that goes into a topic.
LONGEST = 64


def spread(config: Config) -> tuple[Config, list[Problem]]:
    """A configuration in which each pipeline has one source, and an endpoint that its process has for itself.

    Returns
    -------
    Config
    list of Problem
        What stands in the way; the configuration is of no use then.
    """
    pipelines: dict[str, PipelineConfig] = {}
    of: dict[str, str] = {}
    problems: list[Problem] = []
    for name, pipeline in config.pipelines.items():
        sources, fault = _sources(pipeline, config)
        if fault:
            problems.append(Problem(f"pipelines.{name}.source", fault))
        for source in sources:
            one = name if isinstance(pipeline.source, str) and pipeline.source != ALL else f"{name}-{source}"
            if one in pipelines or (one != name and one in config.pipelines):
                problems.append(Problem(f"pipelines.{name}", f"two pipelines would be called {one!r}; rename one"))
            if len(one) > LONGEST:
                text = f"{one!r} has {len(one)} letters; expected at most {LONGEST} in the names of both together"
                problems.append(Problem(f"pipelines.{name}", text))
            pipelines[one] = pipeline.model_copy(update={"source": source})
            of[one] = name
    told = config.model_copy(update={"pipelines": pipelines})
    told._path = config._path
    problems += _recorded(config)
    if config.bus.share is not None and len(config.inputs) > 1:
        problems.append(Problem("bus.share", "shares one source, and there are several; expected none"))
    if problems:
        return told, problems
    return _published(told, of)


def _recorded(config: Config) -> Iterator[Problem]:
    """Files of two sources with one name."""
    seen: dict[str, str] = {}
    for source in config.inputs if config.recording is not None else ():
        first = seen.setdefault(label(source), source)
        if first != source:
            text = f"its recording would be called as that of {first!r} (letters and digits of the name); rename one"
            yield Problem(f"sources.{source}", text)


def label(source: str) -> str:
    """What stands for a source in the name of its recording: a BIDS label has letters and digits alone."""
    return "".join(one for one in source if one.isalnum())


def _sources(pipeline: PipelineConfig, config: Config) -> tuple[tuple[str, ...], str]:
    """The sources of a pipeline, and what is wrong with them."""
    known, asked = list(config.inputs), pipeline.source
    if config.source is not None:
        if asked not in ("", ALL):
            return (), f"is {asked!r}, and there is [source] alone; expected none, or that source as [sources.NAME]"
        return ("",), ""
    if asked == ALL:
        return tuple(known), ""
    if asked == "":
        if len(known) == 1:
            return (known[0],), ""
        return (), f"is missing; expected one of {', '.join(known)}, a list of them, or '*' for each of them"
    names = (asked,) if isinstance(asked, str) else asked
    for name in names:
        if name not in known:
            return (), f"names {name!r}{suggest(name, known)}; there are: {', '.join(known)}"
    if not names or len(set(names)) < len(names):
        return (), f"is {list(names)}; expected at least one source, and each once"
    return names, ""


def _published(config: Config, of: Mapping[str, str]) -> tuple[Config, list[Problem]]:
    """Each process binds endpoints of its own: of a pipeline in several, the first takes the one that was given."""
    hosts = layout(config)
    within: dict[str, list[str]] = {}
    pipelines: dict[str, PipelineConfig] = {}
    problems = []
    for name, pipeline in config.pipelines.items():
        host, row = hosts.decode_of(name).name, within.setdefault(of[name], [])
        if host not in row:
            row.append(host)
        endpoint, fault = _numbered(pipeline.publish, row.index(host))
        if fault:
            problems.append(Problem(f"pipelines.{of[name]}.publish", fault))
        pipelines[name] = pipeline.model_copy(update={"publish": endpoint})
    told = config.model_copy(update={"pipelines": pipelines})
    told._path = config._path
    return told, problems or list(_shared_apart(told, of))


def _numbered(endpoint: str, k: int) -> tuple[str, str]:
    """The endpoint of the k-th process, and what is wrong with it."""
    if k == 0:
        return endpoint, ""
    if endpoint.startswith("ipc://"):
        return f"{endpoint}.{k + 1}", ""
    base, _, port = endpoint.rpartition(":")
    if port in ("0", "*"):
        return endpoint, ""
    if int(port) + k > 65_535:
        return endpoint, f"{endpoint}: process {k + 1} would publish on port {int(port) + k}; expected a lower one"
    return f"{base}:{int(port) + k}", ""


def _shared_apart(config: Config, of: Mapping[str, str]) -> Iterator[Problem]:
    """Pipelines of different processes with one endpoint."""
    hosts = layout(config)
    seen: dict[str, str] = {}
    for name, pipeline in config.pipelines.items():
        first = seen.setdefault(pipeline.publish, name)
        here, there = hosts.decode_of(name), hosts.decode_of(first)
        if here != there and not pipeline.publish.endswith((":0", ":*")):
            yield Problem(
                f"pipelines.{of[name]}.publish",
                f"{pipeline.publish} is where pipeline {first!r} publishes, in another process ({there.name}); "
                "expected an endpoint of its own, or fewer processes (`decode` of [processes])",
            )
