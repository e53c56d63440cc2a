"""Tables of experiments: JSON for programs, Markdown for people, the budget stated in both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_table(out: Path, name: str, title: str, budget: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write ``<name>.json`` and ``<name>.md`` into a folder; give back the Markdown's path."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"title": title, "budget": budget, "rows": list(rows)}
    (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    path = out / f"{name}.md"
    path.write_text(markdown(title, budget, rows), encoding="utf-8")
    return path


def markdown(title: str, budget: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown; columns in order of first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"# {title}", "", f"Budget: {budget}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
        if value["value"] is None:
            return "–"
        interval = "" if value["low"] is None else f" ({value['low']:.3f} to {value['high']:.3f})"
        return f"{value['value']:.3f}{interval}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)
