"""How large a bleed is: the volume of its mask."""

from __future__ import annotations

import numpy as np

from worker.pipelines.head_ct.hounsfield import HounsfieldVolume


def bleed_volume_ml(volume: HounsfieldVolume, blood: np.ndarray) -> float | None:
    """Volume of a mask in mL; None where pixel spacing or slice positions are not known.

    A slab has the area of its mask, and reaches as far along the normal as the slices that it is made of. Slices that
    were not read add nothing.

    Parameters
    ----------
    blood : ndarray of bool, shape (m, H, W)
        On the slabs of ``volume.hu``.
    """
    extent_mm = volume.head.stack.extent_mm()
    pixel_mm = volume.grid.pixel_mm
    if pixel_mm is None or extent_mm is None:
        return None
    area_mm2 = np.array([np.count_nonzero(plane) for plane in blood]) * pixel_mm[0] * pixel_mm[1]
    decoded = volume.slab_of >= 0
    depth_mm = np.bincount(volume.slab_of[decoded], weights=extent_mm[decoded], minlength=len(blood))
    return float((area_mm2 * depth_mm).sum() / 1000.0)
