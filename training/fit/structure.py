"""What a network looks like: a picture of its parts, a text with every layer, and a file that Netron opens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


def save_structure(model: keras.Model, out: Path) -> list[Path]:
    """Write ``model.keras`` (for Netron), ``structure.txt`` and ``structure.svg``; give back the paths.

    The picture shows parts, not layers: layers whose names share their first words, with output shape and weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    model.summary(print_fn=lambda text, **_: lines.append(text), line_length=120)
    (out / "structure.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    model.save(out / "model.keras")
    _draw(model, out / "structure.svg")
    return [out / name for name in ("model.keras", "structure.txt", "structure.svg")]


def parts(model: keras.Model) -> tuple[dict[str, tuple[str, int]], set[tuple[str, str]]]:
    """Part -> (output shape, weights), in order, and the edges between parts."""
    nodes: dict[str, tuple[str, int]] = {}
    edges: set[tuple[str, str]] = set()
    for layer in model.layers:
        name = part_of(layer.name)
        output: Any = getattr(layer, "output", None)
        shape = tuple(output.shape[1:]) if hasattr(output, "shape") else ()
        nodes[name] = (" x ".join(str(n) for n in shape), nodes.get(name, ("", 0))[1] + layer.count_params())
        for node in layer._outbound_nodes:
            reader = part_of(node.operation.name)
            if reader != name and reader:
                edges.add((name, reader))
    return nodes, {(a, b) for a, b in edges if a in nodes and b in nodes}


def part_of(layer_name: str) -> str:
    """``blocks_7_expand_conv`` -> ``blocks_7``; ``conv2d_12`` -> ``conv2d``; ``up_s8_conv_bn`` -> ``up_s8``."""
    words = layer_name.split("_")
    if words[0] in ("blocks", "up", "enc", "stage"):
        return "_".join(words[:2])
    if words[0] in ("conv2d", "batch", "activation"):
        return "convolutions"
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
