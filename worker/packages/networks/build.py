"""Networks by the name that stands in the card (``architecture["builder"]``), in Keras 3 and for every backend.

A builder takes the architecture's options and the input spec and gives a flat functional model whose outputs are a
dict: ``logits`` (n, number of labels), and optionally ``mask_logits`` (n, h, w) and terms that only training reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from worker.packages.card import InputSpec

if TYPE_CHECKING:
    import keras

BUILDERS: dict[str, str] = {
    "effnet_lite_unet": "worker.packages.networks.segmenter:effnet_lite_unet",
    "effnet_lite_classifier": "worker.packages.networks.classifier:effnet_lite_classifier",
    "inception_v3_classifier": "worker.packages.networks.classifier:inception_v3_classifier",
    "effnet_lite_chest": "worker.packages.networks.pneumonia:effnet_lite_chest",
    "pneumonia_cnn": "worker.packages.networks.pneumonia:pneumonia_cnn",
    "pneumonia_blocks": "worker.packages.networks.pneumonia:pneumonia_blocks",
    "keras_transfer": "worker.packages.networks.pneumonia:keras_transfer",
    "lesion_lite": "worker.packages.networks.lesion:lesion_lite",
    "lesion_unet": "worker.packages.networks.lesion:lesion_unet",
    "lesion_resnet50": "worker.packages.networks.lesion:lesion_resnet50",
    "joined": "worker.packages.networks.joined:joined",
    "tiny_unet": "worker.packages.networks.segmenter:tiny_unet",
    "tiny_classifier": "worker.packages.networks.classifier:tiny_classifier",
}


class UnknownBuilderError(KeyError):
    """The card names a builder that this version of Firstread does not have."""


def build(architecture: Mapping[str, Any], spec: InputSpec) -> keras.Model:
    """Build the network of a card, with fresh weights.

    Parameters
    ----------
    architecture : mapping
        ``builder`` and its options; ``classes`` is the number of labels.
    spec : InputSpec
        Gives the input's size and channels.

    Raises
    ------
    UnknownBuilderError
        If there is no such builder.
    """
    options = dict(architecture)
    name = str(options.pop("builder", ""))
    if name not in BUILDERS:
        raise UnknownBuilderError(name)
    module, _, function = BUILDERS[name].partition(":")
    options.pop("softmax_groups", None)
    if name == "joined":
        options["build"] = build  # for its members
    model: keras.Model = getattr(import_module(module), function)(spec, **options)
    return model
