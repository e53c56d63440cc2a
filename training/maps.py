"""``firstread maps``: class maps of any package on a picture, a DICOM image, or a folder of slices.

Grad-CAM, Grad-CAM++ and occlusion of every label of each package, laid over what the network was shown, as pictures
with the version in their names, and as numbers. Chest films have maps of their own (the joint score, and where in the
lungs a map lies: :mod:`training.chest.maps`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from firstread.dicom.datasets import UnusableFile, read_dataset
from firstread.dicom.pixels.reading import UnreadablePixels, read_frame
from training.chest.maps import GRAD_CAM, NUMBERS, read_any
from training.chest.maps import write_maps as write_film_maps
from training.datasets.base import PICTURES, DataSetError, Item
from training.datasets.folders import read_hu, read_picture
from training.options import EXISTING_FOLDER, FOLDER
from worker.packages.package import load
from worker.packages.preprocessing import crops
from worker.packages.preprocessing.compose import compose_boxed
from worker.packages.runtimes.tensorflow import Package
from worker.pipelines.chest_xray.maps import FINE_GRID, Map, agreement, enlarged, log_odds, occlusion_map
from worker.pipelines.dermoscopy.lesion import framed, framing, reduced
from worker.pipelines.dermoscopy.photographs import colours
from worker.pipelines.heatmap import painted, picture, window

PATH = click.Path(exists=True, path_type=Path)


@click.command("maps")
@click.argument("packages", metavar="PACKAGE...", nargs=-1, required=True, type=EXISTING_FOLDER)
@click.option(
    "--picture", "--film", "path", type=PATH, required=True, help="A picture, a DICOM image, or a folder of CT slices."
)
@click.option("--out", type=FOLDER, required=True, help="Folder of pictures and numbers.")
def maps(packages: tuple[Path, ...], path: Path, out: Path) -> None:
    """Lay Grad-CAM, Grad-CAM++ and occlusion of every label of each PACKAGE over a picture."""
    loaded = [load(folder) for folder in packages]
    kinds = {package.card.input.kind for package in loaded}
    if len(kinds) > 1:
        raise DataSetError("packages of one kind of picture at a time")
    if kinds == {"grey"}:
        film, sides_known = read_any(path)
        rows = write_film_maps(loaded, film, out, sides_known)
    else:
        rows = write_maps(loaded, read_pixels(path, kinds.pop()), out)
    for row in rows:
        lungs = f", in the lungs {row['lung_share']:.2f}" if row.get("lung_share") is not None else ""
        click.echo(f"{row['package']} {row['class']} {row['p']:.3f} {row['method']}{lungs}: {row['picture']}")


def read_pixels(path: Path, kind: str) -> np.ndarray:
    """Slices in Hounsfield units (n, H, W), foot to head as their positions say, or one colour picture (1, H, W, 3).

    Raises
    ------
    DataSetError
        If it cannot be read, a picture is given where Hounsfield units are wanted, or slices differ in size.
    """
    if kind == "rgb":
        return _photograph(path)[None]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if any(file.suffix.lower() in PICTURES for file in files):
        raise DataSetError("a picture has no Hounsfield units: give DICOM images")
    placed = sorted((_position(file), index) for index, file in enumerate(files))
    slices = [read_hu(Item("maps", files[i].name, files[i], "", "")) for _, i in placed]
    if len({one.shape for one in slices}) != 1:
        raise DataSetError(f"{path.name}: slices of one size are wanted")
    return np.stack(slices)


def _photograph(path: Path) -> np.ndarray:
    if path.suffix.lower() in PICTURES:
        rgb: np.ndarray | None = read_picture(path, "rgb").astype(np.uint8)
    else:
        try:
            rgb = colours(read_dataset(path), read_frame(path))
        except (UnusableFile, UnreadablePixels) as error:
            raise DataSetError(f"{path.name}: {error}") from error
    if rgb is None:
        raise DataSetError(f"{path.name} is no colour picture")
    return framed(rgb, framing(*rgb.shape[:2])).astype(np.float32)


def _position(file: Path) -> float:
    """Place of a slice along the patient; its number where it has no position."""
    try:
        ds = read_dataset(file)
    except UnusableFile as error:
        raise DataSetError(f"{file.name}: {error}") from error
    place = ds.get("ImagePositionPatient")
    return float(place[2]) if place else float(ds.get("InstanceNumber") or 0)


@dataclass(frozen=True)
class Shown:
    """What a package was shown of one slice or picture: composed input (1, h, w, c), its box, and what to paint on."""

    x: np.ndarray
    box: crops.Box
    below: np.ndarray
    p: np.ndarray


def shown_to(package: Package, pixels: np.ndarray) -> Shown:
    """The slice with the highest probability of the package's first label, or the picture."""
    spec = package.card.input
    seen = pixels
    if spec.kind == "rgb":
        seen = np.stack([reduced(one, package.card.parameters.get("picture_width_px")) for one in pixels])
    x, boxes = compose_boxed(seen, spec)
    p = package.predict(x)["p"]
    index = int(p[:, 0].argmax()) if p.shape[1] else 0
    below = seen[index] if spec.kind == "rgb" else window(seen[index], *spec.windows[0])
    return Shown(x[index : index + 1], boxes[index], np.asarray(below, dtype=np.uint8), p[index])


def write_maps(packages: Sequence[Package], pixels: np.ndarray, out: Path) -> list[dict[str, Any]]:
    """Write an overlay for every map, and their numbers as :data:`NUMBERS`; give back its rows."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for package in packages:
        shown = shown_to(package, pixels)
        name, version = package.card.name, package.card.version
        for label, p in zip(package.card.labels, shown.p.tolist(), strict=True):
            by_method = label_maps(package, label, shown)
            for method, heat in by_method.items():
                file = f"{name}-{version}_{label}_{method}.png"
                overlay = _painted(shown, heat, (f"{name} {version}", f"{label} {p:.2f}", method))
                cv2.imwrite(str(out / file), cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
                rows.append(
                    {
                        "package": f"{name}/{version}",
                        "class": label,
                        "p": round(p, 5),
                        "method": method,
                        "picture": file,
                        "agreement_with_grad_cam": round(agreement(heat, by_method[GRAD_CAM]), 4),
                    }
                )
    (out / NUMBERS).write_text(json.dumps({"maps": rows}, indent=1) + "\n", encoding="utf-8")
    return rows


def label_maps(package: Package, label: str, shown: Shown) -> dict[str, Map]:
    """Grad-CAM, Grad-CAM++ and occlusion of one label on the network's input."""
    column = package.card.labels.index(label)

    def score(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return log_odds(package.predict(inputs[package.key])["p"][:, column])

    first, second = package.class_maps(shown.x, label)
    plain = float(log_odds(shown.p[column : column + 1])[0])
    blocked = occlusion_map({package.key: shown.x[0]}, score, plain, grid=FINE_GRID)
    return {
        GRAD_CAM: enlarged(first[0]),
        "grad_cam_plus": enlarged(second[0]),
        "occlusion": enlarged(blocked),
    }


def _painted(shown: Shown, heat: Map, lines: tuple[str, ...]) -> np.ndarray:
    """The map laid where the network looked: beside the slice, or on the colours beside them."""
    whole = np.clip(crops.restore(heat, shown.box, shown.below.shape[:2]), 0.0, 1.0)
    if shown.below.ndim == 2:
        return picture(shown.below, whole, lines, sides=False)
    return np.hstack([shown.below, painted(shown.below, whole)])
