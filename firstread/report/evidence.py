"""The pictures and the mask of a result, as scoring left them below ``evidence`` in the home."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.records import Instance, Job, Revision, RevisionInstance, newest_of_each
from firstread.settings import Settings
from firstread.storage.store import EVIDENCE_PREFIX, store_of

MASK_FILE = "mask.npz"


def evidence_file(settings: Settings, evidence_path: str | None) -> Path | None:
    """The picture that a job's ``evidence_path`` names, or None where it is gone or lies outside the folder."""
    if not evidence_path:
        return None
    root = settings.evidence_dir.resolve()
    path = (root / evidence_path).resolve()
    if not path.is_relative_to(root):
        return None
    store = store_of(settings)
    if store is not None and not path.exists():
        folder = Path(evidence_path).parent
        for key in store.keys(f"{EVIDENCE_PREFIX}{folder}/"):
            store.fetch(key, root / key.removeprefix(EVIDENCE_PREFIX))
    return path if path.exists() else None


def evidence_pictures(settings: Settings, evidence_path: str | None) -> dict[str, Path]:
    """Every picture of a job by its stem, the one that ``evidence_path`` names first."""
    path = evidence_file(settings, evidence_path)
    if path is None:
        return {}
    folder = path if path.is_dir() else path.parent
    pictures = sorted(folder.glob("*.png"), key=lambda p: (p != path, p.name))
    return {p.stem: p for p in pictures}


def key_picture(settings: Settings, evidence_path: str | None) -> np.ndarray | None:
    """The first picture as (H, W, 3) uint8 in RGB, or None."""
    pictures = list(evidence_pictures(settings, evidence_path).values())
    if not pictures:
        return None
    image = cv2.imread(str(pictures[0]), cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def renumbering(session: Session, job: Job) -> dict[int, int]:
    """Keys of the study's images, each with the key of the same instance in the job's revision.

    Evidence and scores of a result that was carried over name the images of the revision that was scored.
    """
    revision = session.get_one(Revision, job.revision_id)
    members = session.scalars(
        select(Instance)
        .join(RevisionInstance, RevisionInstance.instance_id == Instance.id)
        .where(RevisionInstance.revision_id == revision.id)
    )
    own = {image.identity: image.id for image in newest_of_each(members)}
    images = session.scalars(select(Instance).where(Instance.study_id == revision.study_id))
    return {image.id: own[image.identity] for image in images if image.identity in own}


def read_mask(path: Path) -> tuple[np.ndarray, tuple[tuple[int, int], ...], str]:
    """A mask as written: bool (n, H, W), the (instance row, frame) of each slice, and its label."""
    with np.load(path, allow_pickle=False) as content:
        shape = tuple(int(n) for n in content["shape"])
        mask = np.unpackbits(content["mask"], axis=-1, count=shape[2]).astype(bool).reshape(shape)
        keys = tuple((int(a), int(b)) for a, b in content["keys"])
        return mask, keys, str(content["label"])


def mask_of(
    settings: Settings, evidence_path: str | None, renumbered: Mapping[int, int] | None = None
) -> tuple[np.ndarray, list[tuple[int, int]]] | None:
    """The mask as (n, H, W) bool and the (instance key, frame) of each plane; None where there is none.

    ``renumbered`` is what :func:`renumbering` gives for a result that was carried over.
    """
    path = evidence_file(settings, evidence_path)
    if path is None:
        return None
    file = (path if path.is_dir() else path.parent) / MASK_FILE
    if not file.is_file():
        return None
    try:
        mask, keys, _ = read_mask(file)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile):
        return None
    if len(keys) != len(mask):
        return None
    return mask, [((renumbered or {}).get(key, key), frame) for key, frame in keys]
