"""Listings: a table for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from firstread.text import clean

WIDE = 250
"""Characters of a table that goes into a file or a pipe."""

GAP = 2


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines for a person; control characters that a sender wrote are escaped."""
    click.echo("\n".join(clean(line) for line in text.split("\n")), err=err)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    return str(value)


def print_json(rows: Any) -> None:
    """Print as JSON, times in ISO 8601."""
    text = json.dumps(rows, default=_plain, indent=2, ensure_ascii=False)
    click.echo("\n".join(_json_safe(line) for line in text.split("\n")))


def _json_safe(line: str) -> str:
    """JSON escapes for characters that are unsafe in a terminal and that JSON itself leaves as they are."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def cell(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | tuple):
        return ", ".join(clean(str(v)) for v in value)
    return clean(str(value))


def print_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    title: str = "",
    empty: str = "",
    spare: Sequence[str] = (),
) -> None:
    """Print rows as a table, or ``empty`` where there is none.

    Parameters
    ----------
    spare : sequence of str
        Columns that a narrow terminal leaves out, in this order; a line below says which are left out.
        By default the last ones, up to the third.
    """
    if not rows:
        click.echo(empty or "nothing to show")
        return
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else WIDE
    if not spare and is_terminal:
        spare = columns[:2:-1]
    shown = fitting(rows, columns, spare, width)
    fits = _needed_width(rows, shown) <= width
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for name in shown:
        numeric = isinstance(next((r[name] for r in rows if r.get(name) is not None), None), int | float)
        one_line = fits and name.endswith("_uid")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold", no_wrap=one_line)
    for row in rows:
        # plain text: what a sender wrote is no markup
        table.add_row(*(Text(cell(row.get(name))) for name in shown))
    Console(width=width, height=100).print(table)  # with a height, or a dumb terminal counts as 80 wide
    left_out = [name for name in columns if name not in shown]
    if left_out:
        click.echo(f"(no room for {', '.join(left_out)}; a wider terminal or --json has them)")


IDENTIFYING = "accession_number"
UID = "study_instance_uid"


def fitting(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], spare: Sequence[str], width: int
) -> tuple[str, ...]:
    """The columns that fit side by side into ``width`` characters, those of ``spare`` left out one by one.

    Every row stays identified: the StudyInstanceUID is left out only where each row has an accession number.
    """
    if not all(row.get(IDENTIFYING) for row in rows) or IDENTIFYING not in columns:
        spare = [name for name in spare if name != UID]
    shown = list(columns)
    for name in spare:
        if _needed_width(rows, shown) <= width:
            break
        shown.remove(name)
    return tuple(shown)


def _needed_width(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> int:
    """Characters of a table without a folded cell."""
    widths = (max(len(name), *(len(cell(row.get(name))) for row in rows)) for name in columns)
    return sum(width + GAP for width in widths) - GAP
