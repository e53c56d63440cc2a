"""What the pixels of a head say that its header does not: contrast agent, metal, movement."""

from __future__ import annotations

import numpy as np

from worker.pipelines.head_ct.artefacts import artefacts_of
from worker.pipelines.head_ct.cavity import cavities_of, has_bone_values
from worker.pipelines.head_ct.enhancement import enhancement_of
from worker.pipelines.reasons import Caution


def cautions_of(hu: np.ndarray, pixel_mm: float, step_mm: float) -> list[Caution]:
    """Warnings about slabs of a head, float32 (m, H, W); none where a window has taken bone away.

    Parameters
    ----------
    pixel_mm : float
        Side of a pixel.
    step_mm : float
        How far a slab stands for along the normal.
    """
    if not has_bone_values(hu):
        return []
    head = cavities_of(hu, pixel_mm)
    found = {
        Caution.CONTRAST_SUSPECTED: enhancement_of(head, step_mm).suspected,
        Caution.ARTEFACT_SUSPECTED: artefacts_of(head).suspected,
    }
    return [code for code, suspected in found.items() if suspected]
