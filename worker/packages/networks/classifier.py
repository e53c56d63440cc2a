"""Networks that give labels for a whole picture: a pre-trained encoder, global average pooling, dropout, one layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.packages.card import InputSpec
from worker.packages.networks.effnet_lite import encoder
from worker.packages.networks.inception import inception_v3

if TYPE_CHECKING:
    import keras


def effnet_lite_classifier(spec: InputSpec, classes: int, dropout: float = 0.3) -> keras.Model:
    """EfficientNet-Lite0 with ``classes`` logits."""
    from keras import layers

    image = layers.Input((spec.height, spec.width, spec.channels), name="image")
    return classifier_head(image, encoder(image)["head"], classes, dropout)


def inception_v3_classifier(spec: InputSpec, classes: int, dropout: float = 0.5) -> keras.Model:
    """InceptionV3 with ``classes`` logits; the classifier starts near zero, so that the first loss is log 2."""
    from keras import layers

    image = layers.Input((spec.height, spec.width, spec.channels), name="image")
    return classifier_head(image, inception_v3(image), classes, dropout)


def tiny_classifier(spec: InputSpec, classes: int, width: int = 8, dropout: float = 0.1) -> keras.Model:
    """A few thousand weights: for tests and for trying a recipe out."""
    from keras import layers

    image = layers.Input((spec.height, spec.width, spec.channels), name="image")
    x = image
    for index in range(3):
        x = layers.Conv2D(width << index, 3, 2, padding="same", use_bias=False, name=f"conv_{index}")(x)
        x = layers.BatchNormalization(name=f"conv_{index}_bn")(x)
        x = layers.ReLU(name=f"conv_{index}_relu")(x)
    return classifier_head(image, x, classes, dropout)


def classifier_head(image: Any, features: Any, classes: int, dropout: float) -> keras.Model:
    """Global average pooling, dropout and one layer on feature maps (n, h, w, channels): ``logits`` (n, classes)."""
    import keras
    from keras import layers

    pooled = layers.GlobalAveragePooling2D(name="pool")(features)
    pooled = layers.Dropout(dropout, name="drop")(pooled)
    start = keras.initializers.RandomNormal(stddev=0.01)
    logits = layers.Dense(classes, kernel_initializer=start, name="logits")(pooled)
    return keras.Model(image, {"logits": logits}, name="classifier")
