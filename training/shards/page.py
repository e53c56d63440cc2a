"""The page of ``firstread prepare``: counts, reasons, and example pictures of each window and of the composed input."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.report import STYLE, picture_tag
from training.recipe import Recipe
from training.shards.records import read_records

EXAMPLES = 6


def page(report: dict[str, Any], out: Path, recipe: Recipe) -> str:
    """HTML of the report, with pictures of a few records of either class as they stand in the shards."""
    title = f"{report['dataset']} prepared for {report['recipe']}"
    stages = ("before", "after_selection_and_undersampling", "written")
    parts = [f"<h1>{html.escape(title)}</h1>", "<h2>Counts</h2>", _counts(report, stages)]
    if "shares" in report:
        parts += ["<h2>Shares, before and after folding</h2>", _shares(report["shares"])]
    parts += ["<h2>Not selected</h2>", _not_selected(report)]
    parts += ["<h2>Left out</h2>", _reasons(report["left_out"], "items")]
    parts += ["<h2>Files whose header cannot be read</h2>", _reasons(report["unreadable_headers"], "files")]
    shards = [out / name for name in report["shards"]]
    parts += ["<h2>Windows or neighbours, and the composed input</h2>", *_examples(shards, recipe)]
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


def _reasons(rows: dict[str, Any], what: str) -> str:
    if not rows:
        return "<p>Nothing.</p>"
    lines = [
        f"<tr><td>{html.escape(why)}</td><td>{row['count']}</td><td>{html.escape(', '.join(row['examples']))}</td></tr>"
        for why, row in rows.items()
    ]
    return f"<table><tr><th>why</th><th>{what}</th><th>for example</th></tr>" + "".join(lines) + "</table>"


def _not_selected(report: dict[str, Any]) -> str:
    return "".join(f"<p>{name.replace('_', ' ')}: {n}</p>" for name, n in report["not_selected"].items())


def _examples(shards: list[Path], recipe: Recipe) -> list[str]:
    """A few records of either class of the first label, of the first, middle and last shard, as they are trained on."""
    spread = dict.fromkeys(shards[i] for i in (0, len(shards) // 2, -1))
    left = dict.fromkeys((1.0, 0.0) if recipe.labels else (None,), EXAMPLES // (2 if recipe.labels else 1))
    examples = []
    for row in read_records(list(spread), recipe.input, len(recipe.labels)).as_numpy_iterator():
        value = float(row["labels"][0]) if recipe.labels else None
        if left.get(value, 0):
            left[value] -= 1
            examples.append(_example(row, recipe))
        if not any(left.values()):
            break
    return examples


def _example(row: dict[str, Any], recipe: Recipe) -> str:
    """Each channel (a window, or a neighbouring slice) and, of three, what they are together."""
    image = np.round(row["image"] * 255).astype(np.uint8)
    rgb = recipe.input.kind == "rgb"
    pictures = [] if rgb else [image[..., c] for c in range(image.shape[-1])]
    pictures += [image] if image.shape[-1] == 3 else []
    caption = ", ".join(f"{name} {value:g}" for name, value in zip(recipe.labels, row["labels"], strict=True))
    return f"<p>{' '.join(picture_tag(picture) for picture in pictures)}<br>{html.escape(caption)}</p>"
