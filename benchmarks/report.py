"""Prints results, stores them in files, and inserts them into the docs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.rows import Row

TABLE_HEAD = ("figure", "operator", "baseline", "ratio", "target", "met")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of one row."""
    met = {None: "", True: "yes", False: "NO"}[row.met]
    return (row.figure, row.operator, row.baseline, row.ratio, row.target, met)


def text(rows: Sequence[Row]) -> str:
    """Format a table for a terminal."""
    lines = [TABLE_HEAD, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(TABLE_HEAD))]
    return "\n".join(
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def durations(seconds: Mapping[str, float], total: float) -> str:
    """Format the duration of each figure, longest first, and of the whole run."""
    lines = [
        f"{duration:7.0f} s  {name}" for name, duration in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    return "\n".join([*lines, f"{total:7.0f} s  in total"])


def markdown(rows: Sequence[Row]) -> str:
    """Format a Markdown table."""
    lines = [TABLE_HEAD, ("---",) * len(TABLE_HEAD), *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def save(folder: Path, figure: str, build: str, rows: Sequence[Row]) -> None:
    """Write the rows of one figure to a file; `build` identifies the measured image of the operator."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"build": build, "rows": [row.as_json() for row in rows]}
    (folder / f"{figure}.json").write_text(json.dumps(content, indent=1) + "\n")


def load(folder: Path, figure: str, build: str | None = None) -> list[Row] | None:
    """Read the rows of a figure; None if there are none, or if `build` is given and differs."""
    file = folder / f"{figure}.json"
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    if build not in (None, content["build"]):
        return None
    return [Row(**row) for row in content["rows"]]


def insert_table(page: str, table: str) -> str:
    """Return `page` with `table` between the marks. Raises ValueError if it has no marks."""
    before, begin_mark, rest = page.partition(BEGIN)
    _, end_mark, after = rest.partition(END)
    if not (begin_mark and end_mark):
        raise ValueError(f"The page must contain {BEGIN} and {END}, between which the table is inserted.")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"
