"""A film scores the same in every way in which it may be stored, with the package that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firstread.phantoms.chest import FilmSpec
from tests.builders.chest import film_ds, received
from tests.builders.encodings import LOSSLESS, LOSSY, cells, coded_picture, with_cells, with_stream
from worker.packages.package import load
from worker.packages.preprocessing.compose import compose
from worker.pipelines.chest_xray.film import read_film
from worker.pipelines.chest_xray.maps import log_odds

MODELS = Path(__file__).resolve().parents[3] / "models"


@pytest.mark.timeout(300)
def test_a_film_scores_the_same_in_every_encoding(tmp_path: Path) -> None:
    spec = FilmSpec(size=256, opacity=True)
    package = load(sorted((MODELS / "pneumonia_cnn").iterdir())[-1], self_test=False)

    def seen(name: str) -> np.ndarray:
        folder = tmp_path / name
        folder.mkdir()
        ds = film_ds(spec, WindowCenter=None, WindowWidth=None)
        if name == "jpeg_baseline":
            grey = (cells(ds) >> 4).astype(np.uint8)
            ds = with_cells(ds, grey, BitsAllocated=8, BitsStored=8, HighBit=7)
            ds = with_stream(ds, coded_picture(grey, "JPEG", quality=95), "1.2.840.10008.1.2.4.50")
        elif name != "as_drawn":
            ds = {**LOSSLESS, **LOSSY}[name](ds, folder)
        instance = received(folder, ds)
        return np.asarray(compose(read_film(instance.path, instance.ds)[0][None], package.card.input)[0])

    names = ["as_drawn", *LOSSLESS, *LOSSY, "jpeg_baseline"]
    p = package.predict(np.stack([seen(name) for name in names]))["p"]
    assert 0.001 < p[0, 0] < 0.999
    for name, row in zip(names, p, strict=True):
        if name in LOSSLESS:
            assert row == pytest.approx(p[0], abs=1e-4), name
        else:
            assert log_odds(row) == pytest.approx(log_odds(p[0]), abs=0.25), name
