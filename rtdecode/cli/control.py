"""``rtdecode control``: ask a running process."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rtdecode.errors import ConfigError, ProcessError


def control(
    target: Annotated[str, typer.Argument(help="A session's TOML file, or one process's control endpoint.")],
    verb: Annotated[str, typer.Argument(help="status, swap, record or stop.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="swap: PIPELINE BUNDLE (an endpoint needs no PIPELINE). record: start or stop. stop: [PROCESS]."
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="swap: feed the new bundle so many seconds of the past, not the whole log.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds to wait for an answer; by default 5, and 60 for a swap."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as one line of JSON.")] = False,
) -> None:
    """Ask a running session how it is, swap a bundle without losing a window, start or stop recording, or end it.

    Examples: rtdecode control session.toml status; rtdecode control session.toml swap gaze better.zip
    """
    from rtdecode.daemon.control import Record, Stop, Swap, ask, control_endpoints

    given = arguments or []
    patience = timeout if timeout is not None else 60.0 if verb == "swap" else 5.0
    if "://" in target:
        reached = {_ENDPOINT: target}
    else:
        from rtdecode.config import load

        reached = control_endpoints(load(target))
    match verb, given:
        case "status", [*names]:
            answers = {name: _status(endpoint, name, patience) for name, endpoint in _chosen(reached, names).items()}
        case "stop", [*names]:
            # acquire first: the decoders then end by themselves, with everything decoded
            names = names or _owners(reached)
            answers = {
                name: ask(where, Stop(pipeline=_pipeline(name)), patience, name)
                for name, where in _chosen(reached, names).items()
            }
        case "swap", [*name, bundle] if len(name) == (0 if len(reached) == 1 else 1):
            path = str(Path(bundle).absolute())
            answers = {
                one: ask(where, Swap(pipeline=_pipeline(one), bundle=path, seconds=seconds), patience, one)
                for one, where in _chosen(reached, name or list(reached)).items()
            }
        case "swap", _:
            raise ConfigError("swap takes PIPELINE BUNDLE (for an endpoint: BUNDLE)")
        case "record", [("start" | "stop") as what]:
            answers = {one: ask(reached[one], Record(on=what == "start"), patience, one) for one in _owners(reached)}
        case "record", _:
            raise ConfigError("record takes start or stop")
        case _:
            raise ConfigError(f"{verb!r} is no request; expected status, swap, record or stop")
    if as_json:
        typer.echo(json.dumps(answers))
    else:
        _print(answers)
    silent = [name for name, answer in answers.items() if answer.get("state") == "silent"]
    if silent:
        raise ProcessError(f"{', '.join(silent)} did not answer within {patience:g} s; is the session running?")


#: What an endpoint that is named itself is called in the answer.
_ENDPOINT = "process"


def _owners(reached: dict[str, str]) -> list[str]:
    """Those that own sources; or the endpoint that was named."""
    return [name for name in reached if not _pipeline(name)]


def _pipeline(name: str) -> str:
    """Whom to address there: a pipeline may share its process, which any other has for itself."""
    return "" if name == _ENDPOINT or name.partition(".")[0] == "acquire" else name


def _chosen(reached: dict[str, str], names: list[str]) -> dict[str, str]:
    unknown = [name for name in names if name not in reached]
    if unknown:
        raise ConfigError(f"there is no process {unknown[0]!r}; there are: {', '.join(reached)}")
    return {name: reached[name] for name in names} if names else reached


def _status(endpoint: str, name: str, timeout: float) -> dict[str, Any]:
    """A process's status; one that does not answer is part of the picture, not the end of it."""
    from rtdecode.daemon.control import Status, ask

    try:
        return ask(endpoint, Status(pipeline=_pipeline(name)), timeout, name)
    except ProcessError as error:
        return {"state": "silent", "error": str(error)}


def _print(answers: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name, answer in answers.items():
        table = Table("", name, box=None, show_header=True, header_style="bold")
        for key, value in answer.items():
            table.add_row(key, json.dumps(value) if isinstance(value, dict | list) else str(value))
        console.print(table)
