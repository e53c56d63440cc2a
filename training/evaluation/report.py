"""What an evaluation writes: a page with tables, plots and cases, JSON beside it, and tables in Markdown.

The page is one file that needs nothing else.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from training.evaluation.pictures import Miss, confusion_pictures, initial_figures, last_figures, run_curves
from training.files import written_whole

STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left}img{max-width:100%}figure{display:inline-block;"
    "margin:.4em;width:16em;vertical-align:top}figure.wide{width:26em}figcaption{font-size:12px}"
)
COLUMNS = (
    "auc",
    "average_precision",
    "accuracy",
    "precision",
    "sensitivity",
    "f1",
    "specificity",
    "false_negative_share_of_positives",
    "log_loss",
    "brier",
    "calibration_error",
)
"""Figures in the table of findings."""
NOTHING = "–"
"""Of what is not defined, or was not measured."""


def write_report(
    out: Path,
    title: str,
    notes: Sequence[str],
    figures: Mapping[str, Any],
    pictures: Mapping[str, Sequence[Miss]] | None = None,
    run: Path | None = None,
) -> Path:
    """Write ``evaluation.html`` and ``evaluation.json`` into a folder; give back the page's path.

    Parameters
    ----------
    figures : mapping
        Section -> figures of :mod:`training.evaluation.figures`, or nested mappings of them.
    pictures : mapping, optional
        Heading -> pictures with their captions, in this order.
    run : Path, optional
        Folder of the trainings behind the figures: their curves are shown, what they began with and ended with.
    """
    out.mkdir(parents=True, exist_ok=True)
    shown = dict(pictures or {})
    if run is not None:
        told = {"before_training": initial_figures(run), "last_epoch": last_figures(run)}
        figures = {**figures, **{name: value for name, value in told.items() if value}}
        shown |= run_curves(run)
    if matrices := confusion_pictures(figures):
        shown["Confusion matrices"] = matrices
    _write(out / "evaluation.json", json.dumps(figures, indent=1, default=_json_value) + "\n")
    _write(out / "evaluation.html", report_page(title, notes, figures, shown))
    return out / "evaluation.html"


def report_page(
    title: str,
    notes: Sequence[str],
    figures: Mapping[str, Any],
    pictures: Mapping[str, Sequence[Miss]],
) -> str:
    """HTML of figures, tables (lists of rows) and pictures by heading; a heading without any picture is left out."""
    rest = {name: _without_findings(value) for name, value in figures.items()}
    page = (
        _environment()
        .get_template("evaluation.html.j2")
        .render(
            title=title,
            style=STYLE,
            notes=notes,
            columns=COLUMNS,
            nothing=NOTHING,
            findings=dict(_findings(figures)),
            rest={name: value for name, value in rest.items() if value},
            pictures=pictures,
        )
    )
    return page + "\n"


def write_table(out: Path, name: str, title: str, budget: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write an experiment's ``<name>.json`` and ``<name>.md`` into a folder; give back the Markdown's path.

    ``budget`` says what every row was given: data, steps, packages.
    """
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


def picture_uri(image: np.ndarray) -> str:
    """A picture, uint8 in RGB or grey, as a ``data:`` URI of a PNG."""
    import cv2

    png = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1]
    return _png_uri(png.tobytes())


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("training.evaluation"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"words": _words, "figure": _figure, "png": picture_uri, "plot": _plot_uri}
    environment.tests |= {
        "estimate": _is_estimate,
        "confusion": lambda value: isinstance(value, Mapping) and {"confusion_matrix", "labels"} <= set(value),
        "table": lambda value: isinstance(value, list) and bool(value) and isinstance(value[0], list),
    }
    return environment


def _is_estimate(value: Any) -> bool:
    return isinstance(value, Mapping) and {"value", "low", "high"} <= set(value)


def _is_finding(value: Mapping[str, Any]) -> bool:
    """Figures of :func:`training.evaluation.figures.binary`; those of what was called may be missing."""
    return {"prevalence", "auc"} <= set(value)


def _findings(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """Figures of :func:`training.evaluation.figures.binary`, wherever they stand, by the path to them in words."""
    findings = []
    for name, value in figures.items():
        if not isinstance(value, Mapping):
            continue
        label = f"{prefix}{_words(name)}"
        if _is_finding(value):
            findings.append((label, value))
        else:
            findings.extend(_findings(value, f"{label}: "))
    return findings


def _without_findings(value: Any) -> Any:
    """What the table of findings does not show; None where nothing is left."""
    if not isinstance(value, Mapping):
        return value
    if _is_finding(value):
        return None
    if _is_estimate(value):
        return value
    rest = {
        name: NOTHING if item is None else _without_findings(item)
        for name, item in value.items()
        if name not in ("curves", "calibration")
    }
    return {name: item for name, item in rest.items() if item is not None} or None


def _figure(value: Any) -> str:
    """An estimate with its interval, a float with four digits, or the value as it is."""
    if not isinstance(value, Mapping) or "value" not in value:
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    return _cell({"low": None, "high": None, **value})


def _cell(value: Any) -> str:
    if isinstance(value, Mapping) and _is_estimate(value):
        if value["value"] is None:
            return NOTHING
        interval = "" if value["low"] is None else f" ({value['low']:.3f} to {value['high']:.3f})"
        return f"{value['value']:.3f}{interval}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)


def _plot_uri(row: Mapping[str, Any], name: str) -> str:
    """ROC, precision and recall, calibration, and what each threshold does, of a finding, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(1, 4, figsize=(13, 3.1))
    line = row["curves"]
    axes[0].plot(line["false_positive_rate"], line["true_positive_rate"])
    axes[0].set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    axes[1].plot(line["recall"], line["precision"])
    axes[1].axhline(row["prevalence"], color="grey", lw=0.7)
    axes[1].set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.02))
    axes[2].plot([0, 1], [0, 1], color="grey", lw=0.7)
    axes[2].plot([b["p"] for b in row["calibration"]], [b["share"] for b in row["calibration"]], marker="o")
    axes[2].set(xlabel="probability", ylabel="observed share", title="calibration")
    for column in ("sensitivity", "specificity"):
        axes[3].plot(line["threshold"], line[column], label=column)
    axes[3].set(xlabel="threshold", title="sensitivity and specificity", xlim=(0, 1), ylim=(0, 1.02))
    axes[3].legend()
    drawing.suptitle(name)
    drawing.tight_layout()
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=80)
    pyplot.close(drawing)
    return _png_uri(buffer.getvalue())


def _png_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _json_value(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"not for JSON: {type(value).__name__}")


def _write(path: Path, text: str) -> None:
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
