"""Published figures on HAM10000 beside those of the shipped dermoscopy packages."""

from __future__ import annotations

from tools.docs.figures import cards, figure, interval, table
from tools.docs.targets import CUT, FLAG, LIKELIEST

FIGURES = (
    ("outline, mean IoU", CUT, "0.715, U-Net at a threshold of 0.4", "test/outline/mean_iou"),
    ("outline, mean Dice", CUT, "0.912, the best U-Net", "test/outline/mean_dice"),
    ("accuracy of melanoma, nevus, other", LIKELIEST, "0.850, ResNet-50", "test/accuracy"),
    ("melanoma, recall", LIKELIEST, "", "test/recall/melanoma"),
    ("melanoma, recall", FLAG, "0.88, ResNet-50 at a threshold of its own", "test/flag_melanoma/recall"),
    ("melanoma, F1", FLAG, "0.70, the same", "test/flag_melanoma/f1"),
)
"""What, by which rule it is called here, the published value, and its place in a card's ``metrics``."""


def published() -> str:
    """A table of :data:`FIGURES`, a column for each package that outlines and names lesions."""
    ours = cards("lesion")
    rows = []
    for what, rule, value, place in FIGURES:
        estimates = [figure(card["metrics"], place.split("/")) for card in ours]
        rows.append((what, rule, value, *("" if f is None else interval(f) for f in estimates)))
    return table(
        ("figure", "called by", "published", *(f"`{card['name']}` {card['version']} (95 % CI)" for card in ours)), rows
    )
