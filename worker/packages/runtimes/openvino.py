"""OpenVINO as the runtime of a package's converted network, on CPUs.

Class maps come from feature maps that the converted network gives beside its logits, so that TensorFlow is loaded only
for networks whose logits are no linear function of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.packages.card import Card, PackageError
from worker.packages.probabilities import sigmoid
from worker.packages.runtimes.base import Runtime, Sloped

if TYPE_CHECKING:
    import openvino

BATCH_SIZES = (8, 1)
"""Rows are run in eights and the rest one by one: fixed shapes are faster than open ones, and nothing is filled up."""
LOGITS, MASK_LOGITS = "logits", "mask_logits"
MAPS, FEATURES = "maps", "features"
"""Outputs beside the logits: what the pooling layer reads, and what lies below a layer of class logits."""


def import_openvino() -> Any:
    """The module, without the part of it that sends usage data over the network; ``ImportError`` where it is missing.

    ``openvino`` and ``nncf`` make do without ``openvino_telemetry``, which they would report each conversion through.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 (AVX-512 BF16, AMX) and does not only imitate it."""
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoPackage(Runtime):
    """A converted network with its card, ready to score.

    Parameters
    ----------
    card : Card
    network : openvino.Model
        Outputs ``logits`` and ``mask_logits``, as far as the network has them, and :data:`MAPS` and :data:`FEATURES`
        where there are ``slopes``.
    constants : openvino.Tensor
        Memory that the network's constants lie in, which it does not keep by itself.
    slopes : mapping of str to ndarray (labels, channels)
        Slope of each label's logit along each channel of :data:`MAPS`, and of :data:`FEATURES` where those are others:
        the same at every pixel of every picture. Empty where they are not; then ``reference`` makes the class maps.
    reference : callable
        The package as TensorFlow runs it, loaded when it is called.
    threads : int
        Of one inference; 0 leaves one a core.
    bfloat16 : bool
        Whether to compute in bfloat16 in the place of float32: for processors that :func:`has_bfloat16`.
    """

    def __init__(
        self,
        card: Card,
        network: openvino.Model,
        constants: openvino.Tensor,
        slopes: Mapping[str, np.ndarray],
        reference: Callable[[], Runtime],
        threads: int = 0,
        bfloat16: bool = False,
    ) -> None:
        super().__init__(card)
        self.batch_sizes = BATCH_SIZES[::-1]
        self._constants = constants
        self._slopes = dict(slopes)
        self._reference = reference
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32"}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        self._requests = {size: _request(network, card, size, options) for size in BATCH_SIZES}

    def _parts(self, x: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        for rows in _in_sizes(x):
            found = self._infer(rows)
            outputs = {}
            if LOGITS in found:
                outputs["logits"] = np.array(found[LOGITS], dtype=np.float32)
            if MASK_LOGITS in found and self.card.parameters.get("outlines", True):
                outputs["mask"] = sigmoid(found[MASK_LOGITS])
            yield outputs

    def _sloped(self, x: np.ndarray, column: int) -> Sloped:
        if not self._slopes:
            return self._reference()._sloped(x, column)
        features: dict[str, list[np.ndarray]] = {name: [] for name in self._slopes}
        for rows in _in_sizes(x):
            outputs = self._infer(rows)
            for name, parts in features.items():
                parts.append(np.array(outputs[name], dtype=np.float32))
        maps = np.concatenate(features[MAPS])
        slopes = np.broadcast_to(self._slopes[MAPS][column], maps.shape)
        if FEATURES not in features:
            return maps, slopes, maps, slopes
        below = np.concatenate(features[FEATURES])
        return maps, slopes, below, np.broadcast_to(self._slopes[FEATURES][column], below.shape)

    def _infer(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs by name, in memory that the next call writes over."""
        request, outputs = self._requests[len(rows)]
        request.infer({0: np.ascontiguousarray(rows, dtype=np.float32)}, share_inputs=True)
        return {name: request.get_tensor(output).data for name, output in outputs.items()}


def _in_sizes(x: np.ndarray) -> Iterator[np.ndarray]:
    start = 0
    while start < len(x):
        size = next(s for s in BATCH_SIZES if s <= len(x) - start)
        yield x[start : start + size]
        start += size


def _request(
    network: openvino.Model, card: Card, size: int, options: Mapping[str, Any]
) -> tuple[openvino.InferRequest, Any]:
    """The network compiled for one batch size, and its outputs by name.

    The options name the arithmetic: without that, processors with bfloat16 would round to it on their own.
    """
    ov = import_openvino()
    spec = card.input
    shape = [size, spec.height, spec.width, spec.channels]
    if len(network.inputs) != 1 or not network.inputs[0].partial_shape.compatible(ov.PartialShape(shape)):
        raise PackageError(f"{card.name}/{card.version}: the converted network wants another input than the card's")
    fixed = network.clone()
    fixed.reshape(shape)
    compiled = ov.Core().compile_model(fixed, "CPU", {"PERFORMANCE_HINT": "LATENCY", **options})
    names = (LOGITS, MASK_LOGITS, MAPS, FEATURES)
    outputs = {name: output for output in compiled.outputs for name in names if name in output.get_names()}
    return compiled.create_infer_request(), outputs
