"""Prints results, stores them in files, and inserts them into the docs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.rows import Row

HEAD = ("figure", "ours", "against", "ratio", "wanted", "met")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def cells(row: Row) -> tuple[str, ...]:
    """The cells of one row."""
    met = {None: "", True: "yes", False: "NO"}[row.met]
    return (row.figure, row.ours, row.against, row.ratio, row.wanted, met)


def text(rows: Sequence[Row]) -> str:
    """A table for a terminal."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    return "\n".join(
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def durations(seconds: Mapping[str, float], total: float) -> str:
    """How long each figure took, those that took longest first, and the whole run."""
    lines = [f"{taken:7.0f} s  {name}" for name, taken in sorted(seconds.items(), key=lambda item: -item[1])]
    return "\n".join([*lines, f"{total:7.0f} s  in total"])


def markdown(rows: Sequence[Row]) -> str:
    """A table for a page."""
    lines = [HEAD, ("---",) * len(HEAD), *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def save(folder: Path, figure: str, build: str, rows: Sequence[Row]) -> None:
    """Stores the rows of one figure; `build` identifies the operator's image that they were measured with."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"build": build, "rows": [row.as_json() for row in rows]}
    (folder / f"{figure}.json").write_text(json.dumps(content, indent=1) + "\n")


def load(folder: Path, figure: str, build: str | None = None) -> list[Row] | None:
    """The stored rows of a figure; None if there are none, or if `build` is given and they are of another build."""
    file = folder / f"{figure}.json"
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    if build not in (None, content["build"]):
        return None
    return [Row(**row) for row in content["rows"]]


def into(page: str, table: str) -> str:
    """`page` with `table` between the marks. Raises ValueError if it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"The page has no {BEGIN} and {END} to put the table between.")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"
