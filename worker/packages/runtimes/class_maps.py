"""Class maps from feature maps and the slopes of a class's logit along them, in NumPy: Grad-CAM and Grad-CAM++."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.float32]


def grad_cam(features: np.ndarray, slopes: np.ndarray) -> Maps:
    """Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391): every channel weighted with its mean slope.

    Parameters
    ----------
    features, slopes : ndarray, shape (n, h, w, channels)

    Returns
    -------
    ndarray of float32, shape (n, h, w)
        In [0, 1], each picture scaled to its own maximum; all zero where nothing speaks for the class.
    """
    return _scaled(features, slopes.mean(axis=(1, 2), keepdims=True))


def grad_cam_plus(features: np.ndarray, slopes: np.ndarray) -> Maps:
    """Grad-CAM++ (Chattopadhyay et al. 2018, arXiv 1710.11063), parameters and result as :func:`grad_cam`.

    Equation 19 for ``exp(score)`` as the output, whose second and third derivatives are powers of the slope ``g`` where
    the network is piecewise linear: a channel ``A`` weighs the sum over its pixels of ``alpha * relu(g)`` with
    ``alpha = g^2 / (2 g^2 + sum(A) g^3) = 1 / (2 + sum(A) g)``. So only what raises the score counts, and a channel
    that is active all over the picture counts less than one that is active in one place. Features are meant to be
    activations: a channel whose sum is below zero counts as empty.
    """
    rising = np.maximum(slopes, 0.0)
    total = np.maximum(features.sum(axis=(1, 2), keepdims=True), 0.0)
    return _scaled(features, (rising / (2.0 + total * rising)).sum(axis=(1, 2), keepdims=True))


def _scaled(features: np.ndarray, weights: np.ndarray) -> Maps:
    cam = np.maximum((weights * features).sum(axis=-1), 0.0)
    peak = cam.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.divide(cam, peak, out=np.zeros_like(cam), where=peak > 0), dtype=np.float32)
