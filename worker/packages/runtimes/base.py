"""What every runtime of a package does alike: flipped views, calibration, parts of a batch, class maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from worker.packages.card import Card, PackageError
from worker.packages.probabilities import label_probabilities
from worker.packages.runtimes.class_maps import grad_cam, grad_cam_plus

Sloped = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Maps that the pooling layer reads and a logit's slopes along them, and the same of the features below a layer of
class logits where there is one; each float32, broadcastable to (n, h, w, channels)."""


class Runtime(ABC):
    """A network with its card, ready to score.

    Parameters
    ----------
    card : Card
    """

    batch_sizes: tuple[int, ...]
    """Rows that it runs at once, rising."""

    def __init__(self, card: Card) -> None:
        self.card = card

    @property
    def key(self) -> str:
        """``name/version``."""
        return f"{self.card.name}/{self.card.version}"

    def predict(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Score composed input.

        Parameters
        ----------
        x : ndarray of float32, shape (n, H, W, C)

        Returns
        -------
        dict
            ``p`` and ``p_raw`` (n, labels) float32, calibrated and raw; ``mask`` (n, h, w) float32 probabilities where
            the network has one, unless ``parameters["outlines"]`` says that it never learnt to draw. With
            ``parameters["flip"]`` the mirrored picture is scored too and averaged.
        """
        outputs = self._outputs(x)
        if self.card.parameters.get("flip"):
            mirrored = self._outputs(x[:, :, ::-1])
            if "logits" in outputs:
                outputs["logits"] = 0.5 * (outputs["logits"] + mirrored["logits"])
            if "mask" in outputs:
                outputs["mask"] = 0.5 * (outputs["mask"] + mirrored["mask"][:, :, ::-1])
        p_raw, p = label_probabilities(outputs.pop("logits", np.zeros((len(x), 0), dtype=np.float32)), self.card)
        return {"p": p, "p_raw": p_raw, **outputs}

    def gradients(self, x: np.ndarray, finding: str) -> np.ndarray:
        """Grad-CAM (Selvaraju et al. 2017) of a finding on the map that the pooling layer reads.

        Returns
        -------
        ndarray of float32, shape (n, h, w)
            In [0, 1], each picture scaled to its own maximum; all zero where nothing speaks for the finding.

        Raises
        ------
        PackageError
            If the card has no such finding, or the runtime has no gradients.
        """
        return grad_cam(*self.slopes(x, finding))

    def class_maps(self, x: np.ndarray, finding: str) -> np.ndarray:
        """Grad-CAM of a finding, and Grad-CAM++ as a second opinion, from one pass.

        Grad-CAM++ wants activations: where the pooling layer reads class logits (then Grad-CAM is the plain CAM of Zhou
        et al. 2016), it is made on the features below them.

        Returns
        -------
        ndarray of float32, shape (2, n, h, w)
            Each as :meth:`gradients`.

        Raises
        ------
        PackageError
            As :meth:`gradients`.
        """
        maps, slopes, features, below = self._sloped(x, self._column(finding))
        return np.stack([grad_cam(maps, slopes), grad_cam_plus(features, below)])

    def slopes(self, x: np.ndarray, finding: str) -> tuple[np.ndarray, np.ndarray]:
        """The feature maps that the pooling layer reads, and the slope of a finding's logit along each of them.

        Returns
        -------
        maps, slopes : ndarray of float32, shape (n, h, w, channels)

        Raises
        ------
        PackageError
            As :meth:`gradients`.
        """
        return self._sloped(x, self._column(finding))[:2]

    def _column(self, finding: str) -> int:
        if finding not in self.card.labels:
            raise PackageError(f"{self.key} has no finding {finding}")
        return self.card.labels.index(finding)

    def _outputs(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Logits and mask of any number of rows, run in the runtime's batch shapes."""
        if x.ndim != 4 or not len(x):
            raise PackageError(f"{self.key}: expected input (n, H, W, C) with n > 0, got {x.shape}")
        parts = list(self._parts(x))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @abstractmethod
    def _parts(self, x: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """``logits`` and ``mask`` of the rows in their order, as many at a time as the runtime likes."""

    @abstractmethod
    def _sloped(self, x: np.ndarray, column: int) -> Sloped:
        """Feature maps and the slopes of the logit of a column along them."""
