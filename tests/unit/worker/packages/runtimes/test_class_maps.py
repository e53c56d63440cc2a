"""Grad-CAM and Grad-CAM++ against sums done by hand, and from one pass of a package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.builders.chest import chest_card
from worker.packages.card import InputSpec, PackageError
from worker.packages.runtimes.class_maps import grad_cam, grad_cam_plus
from worker.packages.runtimes.tensorflow import Package

SPEC = InputSpec(kind="grey", height=2, width=2)
PICTURE = np.array([[1.0, 2.0], [3.0, 0.0]], np.float32)[None, :, :, None]


def test_a_channel_that_is_active_everywhere_counts_less_and_one_against_the_class_not_at_all() -> None:
    features = np.array([[[[1, 0, 5], [1, 0, 0]], [[1, 0, 0], [1, 2, 0]]]], np.float32)
    slopes = np.broadcast_to(np.array([0.5, 0.5, -1.0], np.float32), features.shape)
    # sums of the channels 4, 2, 5: weights 4 * 0.5 / (2 + 4 * 0.5), 4 * 0.5 / (2 + 2 * 0.5), 0
    expected = np.array([[0.5, 0.5], [0.5, 0.5 + 2 * 2 / 3]]) / (0.5 + 2 * 2 / 3)
    np.testing.assert_allclose(grad_cam_plus(features, slopes)[0], expected, rtol=1e-6)
    plain = np.array([[0.0, 0.5], [0.5, 1.5]]) / 1.5
    np.testing.assert_allclose(grad_cam(features, slopes)[0], plain, rtol=1e-6)


def test_slopes_that_differ_from_pixel_to_pixel_are_weighed_one_by_one() -> None:
    features = np.array([[[[2.0, 1.0], [0.0, 3.0]]]], np.float32)
    slopes = np.array([[[[1.0, -1.0], [2.0, 0.25]]]], np.float32)
    first = 1.0 / (2 + 2 * 1.0) + 2.0 / (2 + 2 * 2.0)
    second = 0.25 / (2 + 4 * 0.25)
    cam = np.array([2 * first + second, 3 * second])
    np.testing.assert_allclose(grad_cam_plus(features, slopes)[0, 0], cam / cam.max(), rtol=1e-6)


def test_a_picture_without_evidence_for_the_class_has_an_empty_map() -> None:
    features = np.ones((1, 2, 2, 3), np.float32)
    for function in (grad_cam, grad_cam_plus):
        np.testing.assert_array_equal(function(features, -features), np.zeros((1, 2, 2), np.float32))


def _tiny(classed: bool) -> Package:
    """Two channels, one active where the picture is above 0.5 and one where it is above 2; weights 2 and 1."""
    import keras
    from keras import layers

    image = keras.Input((2, 2, 1), name="image")
    features = layers.Conv2D(2, 1, activation="relu", name="conv")(image)
    if classed:
        maps = layers.Conv2D(1, 1, name="maps")(features)
        outputs: dict[str, Any] = {"logits": layers.GlobalAveragePooling2D(name="pool")(maps), "maps": maps}
    else:
        outputs = {"logits": layers.Dense(1, name="logits")(layers.GlobalAveragePooling2D(name="pool")(features))}
    model = keras.Model(image, outputs)
    model.get_layer("conv").set_weights([np.ones((1, 1, 1, 2)), np.array([-0.5, -2.0])])
    weights = np.array([2.0, 1.0])
    last = model.get_layer("maps" if classed else "logits")
    last.set_weights([weights.reshape(last.kernel.shape), np.array([-1.0])])
    return Package(chest_card("pneumonia", ["pneumonia"], input=SPEC), model)


@pytest.mark.parametrize("classed", [False, True])
def test_a_package_gives_both_maps_from_one_pass(classed: bool) -> None:
    # features: (0.5, 0), (1.5, 0), (2.5, 1), (0, 0); sums 4.5 and 1; slopes 2/4 and 1/4
    package = _tiny(classed)
    maps = package.class_maps(PICTURE, "pneumonia")
    assert maps.shape == (2, 1, 2, 2)
    np.testing.assert_array_equal(maps[0], package.gradients(PICTURE, "pneumonia"))
    by_class = np.maximum(np.array([[1.0, 3.0], [6.0, 0.0]]) - (1.0 if classed else 0.0), 0.0)
    np.testing.assert_allclose(maps[0, 0], by_class / by_class.max(), atol=1e-5)
    first, second = 4 * 0.5 / (2 + 4.5 * 0.5), 4 * 0.25 / (2 + 1 * 0.25)
    plus = np.array([[0.5 * first, 1.5 * first], [2.5 * first + second, 0.0]])
    np.testing.assert_allclose(maps[1, 0], plus / plus.max(), atol=1e-5)
    with pytest.raises(PackageError, match="no finding"):
        package.class_maps(PICTURE, "elsewhere")
