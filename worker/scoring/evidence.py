"""Evidence: the pictures and masks behind a result, as files that are whole before a row names them."""

from __future__ import annotations

import io
import re
import uuid
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from firstread import effects
from firstread.clock import utcnow
from firstread.report.evidence import MASK_FILE
from firstread.storage import disk
from firstread.storage.home import make_private
from firstread.storage.store import EVIDENCE_PREFIX, SharedStore
from worker.errors import WorkerError
from worker.pipelines.base import Evidence

NAMES: Final = effects.EVIDENCE
STEM = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")


class EvidenceError(WorkerError):
    """A picture or mask of a shape or name that cannot be written."""

    reason = "evidence_error"


class EvidenceStore:
    """Folder of evidence: ``YYYYMM/<32 hex>/`` for each run of a job, names of our own only."""

    def __init__(self, root: Path, store: SharedStore | None = None) -> None:
        self.root = root
        self._store = store
        root.mkdir(parents=True, exist_ok=True)

    def write(self, evidence: Evidence) -> str | None:
        """Write pictures as PNG and the mask as ``mask.npz``, durably, and only then under their final name.

        ``mask.npz`` holds ``mask`` (packed bits of the (n, H, W) mask, last axis first), ``shape``, ``keys``
        ((n, 2) int64: instance row and frame) and ``label``; :func:`firstread.report.evidence.read_mask` reads it.

        Returns
        -------
        str or None
            Path of the first picture (else of the mask) below the evidence folder; None where there is no evidence.

        Raises
        ------
        EvidenceError
            For a picture that is not (H, W, 3) uint8 or has a name with other than ``a-z 0-9 _ -``.
        """
        files = {f"{stem}.png": _png(stem, picture) for stem, picture in evidence.pictures.items()}
        if evidence.mask is not None:
            files[MASK_FILE] = _mask(evidence)
        if not files:
            return None
        key = f"{utcnow():%Y%m}/{uuid.uuid4().hex}"
        final = self.root / key
        partial = final.with_suffix(".part")
        fresh = not final.parent.is_dir()
        make_private(partial)
        try:
            for name, content in files.items():
                with disk.create(NAMES.create, partial / name) as file:
                    disk.write(NAMES.write, file, content)
                    disk.sync(NAMES.sync, file)
            disk.sync_folder(NAMES.sync_folder, partial)
            disk.rename(NAMES.rename, partial, final)
        except OSError:
            disk.remove_tree(NAMES.discard, partial)
            raise
        disk.sync_folder(NAMES.sync_folder, final.parent)
        if fresh:
            disk.sync_folder(NAMES.sync_folder, self.root)
        if self._store is not None:
            for name in files:
                self._store.put(final / name, f"{EVIDENCE_PREFIX}{key}/{name}")
        return f"{key}/{next(iter(files))}"

    def discard(self, path: str | None) -> None:
        """Remove what :meth:`write` wrote, where its row was not committed."""
        if path is None:
            return
        disk.remove_tree(NAMES.discard, self.root / Path(path).parent)
        if self._store is not None:
            for key in self._store.keys(f"{EVIDENCE_PREFIX}{Path(path).parent}/"):
                self._store.delete(key)


def _png(stem: str, picture: np.ndarray) -> bytes:
    if not STEM.fullmatch(stem):
        raise EvidenceError("evidence picture with a name that cannot be a file name")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise EvidenceError(f"evidence picture of shape {picture.shape} and type {picture.dtype}")
    done, content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise EvidenceError("evidence picture not encoded")
    return content.tobytes()


def _mask(evidence: Evidence) -> bytes:
    mask = np.asarray(evidence.mask, dtype=bool)
    if mask.ndim != 3 or len(evidence.mask_keys) != mask.shape[0]:
        raise EvidenceError(f"mask of shape {mask.shape} with {len(evidence.mask_keys)} keys")
    file = io.BytesIO()
    np.savez_compressed(
        file,
        mask=np.packbits(mask, axis=-1),
        shape=np.asarray(mask.shape, dtype=np.int64),
        keys=np.asarray(evidence.mask_keys, dtype=np.int64).reshape(-1, 2),
        label=np.asarray(evidence.mask_label),
    )
    return file.getvalue()
