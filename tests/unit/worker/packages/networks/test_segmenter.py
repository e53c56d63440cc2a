"""The segmenter with wide windows: it begins as the same network without them, and is taught through them."""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.packages.card import InputSpec
from worker.packages.networks.segmenter import effnet_lite_unet

NARROW = InputSpec(kind="hu", height=64, width=64, windows=((0, 80),), neighbours=1)
WIDE = NARROW.model_copy(update={"wide_windows": ((-20, 180), (-100, 900))})
OPTIONS: dict[str, Any] = {"classes": 2, "decoder": (16, 12, 8, 8), "depth": 12, "top": 32}


def test_wide_windows_begin_by_changing_nothing_and_can_be_learnt() -> None:
    narrow, wide = effnet_lite_unet(NARROW, **OPTIONS), effnet_lite_unet(WIDE, **OPTIONS)
    for layer in narrow.layers:
        if layer.weights:
            wide.get_layer(layer.name).set_weights(layer.get_weights())
    x = np.random.default_rng(0).random((2, 64, 64, 5), dtype=np.float32)
    before, same = narrow.predict_on_batch(x[..., :3]), wide.predict_on_batch(x)
    for name, value in before.items():
        np.testing.assert_allclose(same[name], value, atol=1e-4)
    for layer in ("wide_out_2", "wide_out_4"):
        kernel, bias = wide.get_layer(layer).get_weights()
        wide.get_layer(layer).set_weights([kernel + 0.5, bias])
    after = wide.predict_on_batch(x)
    other = wide.predict_on_batch(np.concatenate([x[..., :3], 0 * x[..., 3:]], axis=-1))
    assert all(np.abs(after[name] - other[name]).max() > 1e-3 for name in ("logits", "mask_logits"))
