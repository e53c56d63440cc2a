"""The page of ``firstread prepare``: counts, reasons, and example pictures of each window and of the composed input."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from training.datasets.base import DataSet, DataSetError, Item
from training.evaluation.report import STYLE, picture_tag
from training.recipe import Recipe
from worker.packages import preprocessing

EXAMPLES = 6


def page(report: dict[str, Any], dataset: DataSet, chosen: Sequence[Item], recipe: Recipe) -> str:
    """HTML of the report, with pictures of a few items of either class."""
    title = f"{report['dataset']} prepared for {report['recipe']}"
    stages = ("before", "after_selection_and_undersampling", "written")
    parts = [f"<h1>{html.escape(title)}</h1>", "<h2>Counts</h2>", _counts(report, stages)]
    if "shares" in report:
        parts += ["<h2>Shares, before and after folding</h2>", _shares(report["shares"])]
    parts += ["<h2>Left out</h2>", _left_out(report)]
    parts += [
        "<h2>Windows and composed input</h2>",
        *(_example(dataset, item, recipe) for item in _picked(chosen, recipe)),
    ]
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>' + (
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def _counts(report: dict[str, Any], stages: Sequence[str]) -> str:
    rows = ["<tr><th></th>" + "".join(f"<th>{s.replace('_', ' ')}</th>" for s in stages) + "</tr>"]
    for name in ("items", "patients", "studies"):
        rows.append(f"<tr><th>{name}</th>" + "".join(f"<td>{report[s][name]}</td>" for s in stages) + "</tr>")
    for label in report["before"]["labels"]:
        cells = [report[s]["labels"][label] for s in stages]
        text = "".join(f"<td>{c['positive']} / {c['negative']} / {c['unknown']}</td>" for c in cells)
        rows.append(f"<tr><th>{html.escape(label)} (positive / negative / unknown)</th>{text}</tr>")
    return "<table>" + "".join(rows) + "</table>"


def _shares(shares: dict[str, dict[str, dict[str, int]]]) -> str:
    """Pictures and percent of every class, a row a split, for each way of counting."""
    tables = []
    for kind in next(iter(shares.values()), {}):
        names = list(dict.fromkeys(name for split in shares.values() for name in split[kind]))
        rows = [f"<tr><th>{html.escape(kind)}</th>" + "".join(f"<th>{html.escape(n)}</th>" for n in names) + "</tr>"]
        for split, kinds in shares.items():
            total = max(1, sum(kinds[kind].values()))
            counts = [kinds[kind].get(name, 0) for name in names]
            cells = "".join(f"<td>{n} ({100 * n / total:.1f} %)</td>" for n in counts)
            rows.append(f"<tr><th>{html.escape(split)}</th>{cells}</tr>")
        tables.append("<table>" + "".join(rows) + "</table>")
    return "".join(tables)


def _left_out(report: dict[str, Any]) -> str:
    if not report["left_out"]:
        return "<p>Nothing.</p>"
    rows = [
        f"<tr><td>{html.escape(why)}</td><td>{row['count']}</td><td>{html.escape(', '.join(row['examples']))}</td></tr>"
        for why, row in report["left_out"].items()
    ]
    return "<table><tr><th>why</th><th>items</th><th>for example</th></tr>" + "".join(rows) + "</table>"


def _picked(chosen: Sequence[Item], recipe: Recipe) -> list[Item]:
    """A few of either class of the first label, spread over the list."""
    picked: list[Item] = []
    if not recipe.labels:
        return [chosen[i] for i in np.linspace(0, len(chosen) - 1, min(EXAMPLES, len(chosen))).astype(int)]
    for value in (1.0, 0.0):
        rows = [item for item in chosen if item.labels.get(recipe.labels[0]) == value]
        picked += [rows[i] for i in np.linspace(0, len(rows) - 1, min(EXAMPLES // 2, len(rows))).astype(int)]
    return picked


def _example(dataset: DataSet, item: Item, recipe: Recipe) -> str:
    try:
        pixels = dataset.pixels(item)[None]
        unit = preprocessing.to_unit(pixels, recipe.input)[0]
        composed = preprocessing.stack(preprocessing.planes(pixels, recipe.input), recipe.input)[0]
    except (OSError, ValueError, DataSetError):
        return ""
    windows = [unit] if recipe.input.kind == "rgb" else [unit[..., c] for c in range(unit.shape[-1])]
    shown = composed if composed.shape[-1] == 3 else composed[..., 0]
    tags = [picture_tag((picture * 255).astype(np.uint8)) for picture in (*windows, shown)]
    caption = ", ".join(f"{name} {value:g}" for name, value in item.labels.items())
    return f"<p>{' '.join(tags)}<br>{html.escape(caption)}</p>"
