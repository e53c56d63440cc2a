"""Figures that others have published for head CT, to stand beside ours."""

from __future__ import annotations

from typing import Any

PUBLISHED: dict[str, Any] = {
    "note": "other data and other splits, often not by patient: not to be compared digit by digit",
    "InceptionV3, three windows, RSNA 2019, validation slices 1:1": {
        "accuracy": 0.928,
        "false_negative_share_of_positives": 0.0476,
    },
    "best on RSNA 2019, slices": {
        "auc_any": 0.988,
        "auc_epidural": 0.984,
        "auc_intraparenchymal": 0.992,
        "auc_intraventricular": 0.996,
        "auc_subarachnoid": 0.985,
        "auc_subdural": 0.983,
        "weighted_log_loss": 0.04383,
    },
    "authors of CT-ICH, positive slices": {"dice": 0.31},
    "cleared products, exams": {"sensitivity": 0.96, "specificity": 0.95},
}
"""The InceptionV3 authors mark their false-negative share as still to be corrected."""
