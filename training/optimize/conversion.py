"""From a package as TensorFlow runs it to its file for OpenVINO."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.packages.converted import Precision
from worker.packages.networks.joined import parts_named
from worker.packages.openvino_file import CONSTANTS, GRAPH, OpenVinoFile, runtime_of
from worker.packages.package import golden_output, read_golden
from worker.packages.preprocessing.compose import compose
from worker.packages.runtimes.openvino import FEATURES, LOGITS, MAPS, MASK_LOGITS, import_openvino
from worker.packages.runtimes.tensorflow import CLASS_LAYER, POOL, Package

if TYPE_CHECKING:
    import openvino

SAME = 1e-4
"""Largest difference, as a share of the largest slope, between slopes that count as one."""


def convert(
    directory: Path, package: Package, precision: Precision, calibration: Sequence[np.ndarray] = ()
) -> OpenVinoFile:
    """A package's network for OpenVINO, with its own golden outputs.

    Parameters
    ----------
    directory : Path
        The package's folder.
    package : Package
        As :func:`worker.packages.package.load` gives it.
    precision : {"fp32", "fp16", "bf16", "int8"}
        ``fp16`` keeps constants in half precision, as the package's own weights are, and computes in single; ``bf16``
        holds the same and computes in bfloat16, on processors that have it.
    calibration : sequence of ndarray of float32 (1, H, W, C)
        Composed pictures, of which ``int8`` takes the ranges of its activations.

    Raises
    ------
    ValueError
        For ``int8`` without pictures.
    """
    slopes = constant_slopes(package, read_golden(directory, package.card)[0])
    network = converted_network(package, with_maps=bool(slopes))
    if precision == "int8":
        network = quantised(network, calibration)
    content = OpenVinoFile(*_serialised(network, compressed=precision != "fp32"), np.zeros(0), slopes)
    runtime = runtime_of(directory, package.card, content, precision)
    pixels = read_golden(directory, package.card)[0]
    golden = runtime.predict(compose(pixels, package.card.input))[golden_output(package.card)]
    return OpenVinoFile(content.graph, content.constants, golden, slopes)


def converted_network(package: Package, with_maps: bool) -> openvino.Model:
    """The folded network as an OpenVINO model of any number of rows, with its feature maps beside the logits."""
    import keras
    import tensorflow as tf

    model, spec = package.model, package.card.input
    outputs = {name: model.output[name] for name in (LOGITS, MASK_LOGITS) if name in model.output}
    if with_maps:
        outputs |= {name: _side_by_side(tensors) for name, tensors in _features(package).items()}
    network = keras.Model(model.inputs, outputs)
    pixels = tf.TensorSpec((None, spec.height, spec.width, spec.channels), tf.float32, name="image")
    traced = tf.function(lambda image: network(image, training=False), input_signature=[pixels])
    converted: openvino.Model = import_openvino().convert_model(traced.get_concrete_function(), share_weights=False)
    return converted


def constant_slopes(package: Package, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Slope of each label's logit along each channel of the feature maps, if it is the same for every picture.

    So it is for a network that pools its maps and makes logits of them by one dense layer, or pools class logits.

    Parameters
    ----------
    pixels : ndarray
        The golden pixels; noise is tried beside them.

    Returns
    -------
    dict of str to ndarray of float32 (labels, channels)
        :data:`MAPS`, and :data:`FEATURES` where class maps need them; empty for other networks.
    """
    labels = package.card.labels
    if not labels or not parts_named(package.model, POOL):
        return {}
    x = compose(pixels, package.card.input)
    noise = np.random.default_rng(0).uniform(x.min(), x.max(), (1, *x.shape[1:])).astype(np.float32)
    rows: dict[str, list[np.ndarray]] = {MAPS: [], FEATURES: []}
    for column in range(len(labels)):
        _, slopes, _, below = package._sloped(np.concatenate([x, noise]), column)
        for name, found in ((MAPS, slopes), (FEATURES, below)):
            flat = found.reshape(-1, found.shape[-1])
            if np.ptp(flat, axis=0).max() > SAME * np.abs(flat).max():
                return {}
            rows[name].append(flat.mean(axis=0))
    names = _features(package)
    return {name: np.stack(found).astype(np.float32) for name, found in rows.items() if name in names}


def quantised(network: openvino.Model, calibration: Sequence[np.ndarray]) -> openvino.Model:
    """The network with weights and activations in int8 (NNCF, post-training), ranges from the pictures.

    Biases are corrected on what the layers before give in int8, which takes minutes. The quick way, which takes what
    they give in float, loses more: with it the binary score of films did not stay within the tolerance.
    """
    if not calibration:
        raise ValueError("int8 takes its ranges from pictures, and there are none")
    import_openvino()
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    made: openvino.Model = nncf.quantize(
        network, nncf.Dataset(list(calibration)), subset_size=len(calibration), fast_bias_correction=False
    )
    return made


def _features(package: Package) -> dict[str, list[Any]]:
    """Tensors of the feature maps of each member, by the name of the output that they become."""
    pools, classed = parts_named(package.model, POOL), parts_named(package.model, CLASS_LAYER)
    features = {MAPS: [layer.input for layer in pools]}
    return features | ({FEATURES: [layer.input for layer in classed]} if classed else {})


def _side_by_side(tensors: list[Any]) -> Any:
    from keras import layers

    return layers.Concatenate(axis=-1)(tensors) if len(tensors) > 1 else layers.Identity()(tensors[0])


def _serialised(network: openvino.Model, compressed: bool) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as held:
        path = Path(held) / GRAPH
        import_openvino().save_model(network, path, compress_to_fp16=compressed)
        return path.read_bytes(), path.with_name(CONSTANTS).read_bytes()
