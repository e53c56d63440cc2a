"""What a network looks like: a picture of its parts, a text with every layer, and a file that Netron opens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


NUMBERED = re.compile(r"(conv2d|batch_normalization|activation|custom_scale_layer|(max|average)_pooling2d)(_\d+)?")
"""Names of layers that tell no block: Keras's own, and those of :mod:`worker.packages.networks.inception`."""


def save_structure(model: keras.Model, out: Path) -> list[Path]:
    """Write ``model.keras`` (for Netron), ``structure.txt`` and ``structure.svg``; give back the paths.

    The picture shows blocks, not layers: layers whose names share their first words, with output shape and weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "structure.txt").write_text(layer_table(model), encoding="utf-8")
    model.save(out / "model.keras")
    _draw(model, out / "structure.svg")
    return [out / name for name in ("model.keras", "structure.txt", "structure.svg")]


def layer_table(model: keras.Model) -> str:
    """Every layer with its kind, output shape, parameters and what it reads, columns as wide as what stands in them.

    The counts are those of the network, without the optimizer's state.
    """
    rows = [("layer", "kind", "output", "parameters", "reads")]
    for layer in model.layers:
        reads = ", ".join(dict.fromkeys(read_by(layer)))
        rows.append((layer.name, type(layer).__name__, output_shape(layer), f"{layer.count_params():,}", reads))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    total = model.count_params()
    lines += ["", f"parameters: {total:,}", f"trained: {trained:,}", f"not trained: {total - trained:,}"]
    return "\n".join(lines) + "\n"


def read_by(layer: Any) -> list[str]:
    """Names of the layers whose outputs a layer reads."""
    tensors = (tensor for node in layer._inbound_nodes[:1] for tensor in node.input_tensors)
    return [tensor._keras_history.operation.name for tensor in tensors]


def output_shape(layer: Any) -> str:
    """``32 x 32 x 8``; empty where there are several outputs."""
    output: Any = getattr(layer, "output", None)
    return " x ".join(str(n) for n in output.shape[1:]) if hasattr(output, "shape") else ""


def parts(model: keras.Model) -> tuple[dict[str, tuple[str, int]], set[tuple[str, str]]]:
    """Block -> (output shape, weights), in order, and the edges between blocks."""
    block = blocks_of([layer.name for layer in model.layers])
    nodes: dict[str, tuple[str, int]] = {}
    edges: set[tuple[str, str]] = set()
    for layer in model.layers:
        name = block[layer.name]
        nodes[name] = (output_shape(layer), nodes.get(name, ("", 0))[1] + layer.count_params())
        for node in layer._outbound_nodes:
            reader = block.get(node.operation.name, name)
            if reader != name:
                edges.add((name, reader))
    return nodes, edges


def blocks_of(names: Sequence[str]) -> dict[str, str]:
    """Layer -> block. A layer that is named by a number belongs to the block that the next name tells."""
    block: dict[str, str] = {}
    following = "convolutions"
    for name in reversed(names):
        if not NUMBERED.fullmatch(name):
            following = part_of(name)
        block[name] = following
    return block


def part_of(layer_name: str) -> str:
    """``blocks_7_expand_conv`` -> ``blocks_7``; ``conv4_block3_2_bn`` -> ``conv4_block3``; ``mixed_5b`` as it is."""
    words = layer_name.split("_")
    two = words[0] in ("blocks", "up", "enc", "stage", "mixed", "block35", "block17", "block8")
    if two or (len(words) > 2 and words[1].startswith("block")):
        return "_".join(words[:2])
    return words[0]


def _draw(model: keras.Model, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    nodes, edges = parts(model)
    depth = _depths(list(nodes), edges)
    rows: dict[int, list[str]] = {}
    for name in nodes:
        rows.setdefault(depth[name], []).append(name)
    place = {name: (i - (len(row) - 1) / 2, -level) for level, row in rows.items() for i, name in enumerate(row)}
    drawing, axes = pyplot.subplots(figsize=(9, max(3.0, 0.62 * (max(depth.values()) + 1))))
    for a, b in edges:
        _arrow(axes, place[a], place[b])
    for name, (shape, weights) in nodes.items():
        text = f"{name}\n{shape}" + (f"   {weights:,}" if weights else "")
        axes.text(
            *place[name],
            text,
            ha="center",
            va="center",
            fontsize=7,
            bbox={"boxstyle": "round", "fc": "#eef3fb", "ec": "#5577aa"},
        )
    axes.set(xlim=(-2.5, 2.5), ylim=(-max(depth.values()) - 0.7, 0.7))
    axes.axis("off")
    drawing.savefig(path, bbox_inches="tight")
    pyplot.close(drawing)


def _depths(names: list[str], edges: set[tuple[str, str]]) -> dict[str, int]:
    """Longest way from the input; edges against the order of first appearance close loops of parts and do not count."""
    order = {name: i for i, name in enumerate(names)}
    depth = dict.fromkeys(names, 0)
    for name in names:
        before = [depth[a] + 1 for a, b in edges if b == name and order[a] < order[name]]
        depth[name] = max(before, default=0)
    return depth


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    bend = 0.0 if abs(start[1] - end[1]) < 1.5 else 0.35
    axes.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": "#99a",
            "lw": 0.7,
            "shrinkA": 9,
            "shrinkB": 9,
            "connectionstyle": f"arc3,rad={bend}",
        },
    )
