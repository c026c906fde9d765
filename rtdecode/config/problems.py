"""What is wrong with a configuration, where, and in which line."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rtdecode.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    place : str
        The key at fault: ``pipelines.gaze.budget_ms``; empty where the whole file is.
    message : str
        What is wrong, what was expected, what to do.
    line : int, optional
        Line of the file, counted from 1.
    """

    place: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = self.place if self.line is None else f"{self.place} (line {self.line})".strip()
        return f"{where}: {self.message}" if where else self.message


class InvalidConfigError(ConfigError):
    """A configuration with problems, all of them in `problems`."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{path}: {len(problems)} problem{'s' if len(problems) != 1 else ''}{lines}")


def suggest(key: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, to end a sentence with; nothing where none is near."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def key_lines(text: str) -> dict[str, int]:
    """Where keys and tables stand, by place. `tomllib` does not tell, so lines are read for their beginnings only."""
    lines: dict[str, int] = {}
    arrays: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.fullmatch(line)
        if header:
            table = _table_place(_PART.findall(header[2]), arrays, begins=header[1] == "[[")
            lines.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key:
            parts = [part.strip("\"'") for part in _PART.findall(key[1])]
            lines.setdefault(".".join([table, *parts] if table else parts), number)
    return lines


def _table_place(parts: list[str], arrays: dict[str, int], *, begins: bool) -> str:
    """A table's place, with the number of each array of tables on the way (``pipelines.x.windows[1]``)."""
    place = ""
    for n, part in enumerate(parts, start=1):
        part = part.strip("\"'")
        place = f"{place}.{part}" if place else part
        if begins and n == len(parts):
            arrays[place] = arrays.get(place, -1) + 1
        if place in arrays:
            place += f"[{arrays[place]}]"
    return place


def with_line(problem: Problem, lines: Mapping[str, int]) -> Problem:
    """`problem` with the line of its place, or of the nearest table around it."""
    place = problem.place
    while place:
        if place in lines:
            return Problem(problem.place, problem.message, lines[place])
        cut = max(place.rfind("."), place.rfind("["))
        place = place[:cut] if cut > 0 else ""
    return problem
