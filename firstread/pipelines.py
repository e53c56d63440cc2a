"""Which finding leads a pipeline, and which pipeline a finding belongs to."""

from __future__ import annotations

MAIN_FINDINGS = {"head_ct": "any", "chest_xray": "pneumonia", "dermoscopy": "melanoma"}
"""The finding that flags, and that a verdict is about unless it names another."""

PIPELINE_OF_FINDING = {
    **dict.fromkeys(("any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"), "head_ct"),
    **dict.fromkeys(("pneumonia", "normal", "bacterial", "viral", "covid19"), "chest_xray"),
    **dict.fromkeys(
        ("melanoma", "nevus", "other", "dx_mel", "dx_nv", "dx_bkl", "dx_bcc", "dx_akiec", "dx_vasc", "dx_df"),
        "dermoscopy",
    ),
}

DEFAULT_THRESHOLD = 0.5
"""Where a finding has no operating point of its own, for the question whether it was called positive."""


def flags_by_itself(pipeline: str, finding: str) -> bool:
    """Whether a finding can be flagged; all others are hints, whatever operating point they have."""
    return MAIN_FINDINGS.get(pipeline) == finding
