"""Published figures on HAM10000 beside those of the shipped dermoscopy packages."""

from __future__ import annotations

from tools.docs.figures import cards, figure, interval, table

FIGURES = (
    ("outline, mean IoU", "0.715, U-Net at a threshold of 0.4", "test/outline/mean_iou"),
    ("outline, mean Dice", "0.912, the best U-Net", "test/outline/mean_dice"),
    ("accuracy of melanoma, nevus, other", "0.850, ResNet-50", "test/accuracy"),
    ("melanoma, recall at one threshold", "0.88, the same", "test/flag_melanoma/recall"),
    ("melanoma, F1 at that threshold", "0.70, the same", "test/flag_melanoma/f1"),
)
"""What, the published value, and its place in a card's ``metrics``."""


def published() -> str:
    """A table of :data:`FIGURES`, a column for each package that outlines and names lesions."""
    ours = cards("lesion")
    rows = []
    for what, value, place in FIGURES:
        estimates = [figure(card["metrics"], place.split("/")) for card in ours]
        rows.append((what, value, *("" if f is None else interval(f) for f in estimates)))
    return table(("figure", "published", *(f"`{card['name']}` {card['version']} (95 % CI)" for card in ours)), rows)
