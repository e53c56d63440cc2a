"""The page: tables, plots and the worst misses, in one file that needs nothing else; JSON beside it."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left}img{max-width:100%}figure{display:inline-block;"
    "margin:.4em;width:16em}figcaption{font-size:12px}"
)
SHOWN = ("auc", "average_precision", "accuracy", "precision", "sensitivity", "f1", "specificity",
         "false_negative_share_of_positives", "log_loss", "brier", "calibration_error")  # fmt: skip


@dataclass(frozen=True)
class Miss:
    """A picture on which the model was far off: uint8 (H, W) or (H, W, 3) and what to say below it."""

    picture: np.ndarray
    caption: str


def write_report(
    out: Path,
    title: str,
    notes: Sequence[str],
    figures: Mapping[str, Any],
    misses: Sequence[Miss] = (),
    pictures: Mapping[str, Sequence[Miss]] | None = None,
) -> Path:
    """Write ``evaluation.html`` and ``evaluation.json`` into a folder.

    Parameters
    ----------
    figures : mapping
        Section -> figures of :mod:`training.evaluation.figures`, or nested mappings of them.
    pictures : mapping, optional
        Heading -> pictures with their captions, before the worst misses.
    """
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "evaluation.json", json.dumps(figures, indent=1, default=_plain) + "\n")
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(note)}</p>" for note in notes)]
    binary = dict(_binary_sections(figures))
    if binary:
        parts += ["<h2>Findings</h2>", _binary_table(binary)]
        parts += [_plots(name, row) for name, row in binary.items() if row.get("curves")]
    for name, value in figures.items():
        rest = _rest(value)
        if rest:
            parts += [f"<h2>{html.escape(_words(name))}</h2>", _tree(rest)]
    for heading, shown in (pictures or {}).items():
        parts += [f"<h2>{html.escape(heading)}</h2>", *(_figure(picture) for picture in shown)]
    if misses:
        parts += ["<h2>Worst misses</h2>", *(_figure(miss) for miss in misses)]
    body = "\n".join(parts)
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    _write(out / "evaluation.html", f"{page}<style>{STYLE}</style><body>{body}</body></html>\n")
    return out / "evaluation.html"


def picture_tag(image: np.ndarray, alt: str = "") -> str:
    """A picture as a tag with its PNG inside; ``image`` is uint8 in RGB or grey."""
    import cv2

    stored = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1]
    data = base64.b64encode(stored.tobytes()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _binary_sections(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    found = []
    for name, value in figures.items():
        if not isinstance(value, Mapping):
            continue
        label = f"{prefix}{_words(name)}"
        if "prevalence" in value and "confusion" in value:
            found.append((label, value))
        else:
            found.extend(_binary_sections(value, f"{label}: "))
    return found


def _binary_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    head = ["", "N", "patients", "prevalence", *(_words(name) for name in SHOWN), "TP / FP / FN / TN"]
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    for name, row in rows.items():
        c = row["confusion"]
        counts = " / ".join(str(c[k]) for k in ("true_positive", "false_positive", "false_negative", "true_negative"))
        cells = [name, str(row["n"]), str(row["patients"]), f"{row['prevalence']:.3f}"]
        cells += [_estimate(row[shown]) for shown in SHOWN] + [counts]
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"


def _estimate(value: Any) -> str:
    if not isinstance(value, Mapping) or "value" not in value:
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    if value["value"] is None:
        return "–"
    if value.get("low") is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def _plots(name: str, row: Mapping[str, Any]) -> str:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(1, 3, figsize=(10, 3.1))
    line = row["curves"]
    axes[0].plot(line["false_positive_rate"], line["true_positive_rate"])
    axes[0].set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    axes[1].plot(line["recall"], line["precision"])
    axes[1].axhline(row["prevalence"], color="grey", lw=0.7)
    axes[1].set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.02))
    axes[2].plot([0, 1], [0, 1], color="grey", lw=0.7)
    axes[2].plot([b["p"] for b in row["calibration"]], [b["share"] for b in row["calibration"]], marker="o")
    axes[2].set(xlabel="probability", ylabel="observed share", title="calibration")
    drawing.suptitle(name)
    drawing.tight_layout()
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=80)
    pyplot.close(drawing)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{html.escape(name)}" src="data:image/png;base64,{data}"></p>'


def _rest(value: Any) -> Any:
    """What the table of findings does not show."""
    if not isinstance(value, Mapping):
        return value
    if "prevalence" in value and "confusion" in value:
        return None
    if {"value", "low", "high"} <= set(value):
        return value
    kept = {name: _rest(item) for name, item in value.items() if name not in ("curves", "calibration")}
    return {name: item for name, item in kept.items() if item is not None} or None


def _tree(value: Any) -> str:
    if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
        size = f", N {value['n']}" if value.get("n") is not None else ""
        return html.escape(_estimate(value) + size)
    if isinstance(value, Mapping) and {"confusion_matrix", "labels"} <= set(value):
        matrix = _confusion(value["confusion_matrix"], [_words(str(label)) for label in value["labels"]])
        rest = {name: item for name, item in value.items() if name not in ("confusion_matrix", "labels")}
        return f"{matrix}{_tree(rest)}"
    if isinstance(value, Mapping):
        rows = "".join(f"<tr><th>{html.escape(_words(str(k)))}</th><td>{_tree(v)}</td></tr>" for k, v in value.items())
        return f"<table>{rows}</table>"
    if isinstance(value, list) and value and isinstance(value[0], list):
        rows = "".join("<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in row) + "</tr>" for row in value)
        return f"<table>{rows}</table>"
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def _confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Counts with the truth in rows and what was called in columns, both named."""
    head = "".join(f"<th>called {html.escape(label)}</th>" for label in labels)
    rows = "".join(
        f"<tr><th>{html.escape(label)}</th>" + "".join(f"<td>{count}</td>" for count in row) + "</tr>"
        for label, row in zip(labels, matrix, strict=True)
    )
    return f"<table><tr><th>truth</th>{head}</tr>{rows}</table>"


def _figure(miss: Miss) -> str:
    return f"<figure>{picture_tag(miss.picture)}<figcaption>{html.escape(miss.caption)}</figcaption></figure>"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"not for JSON: {type(value).__name__}")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
