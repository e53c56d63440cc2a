"""What the deliveries count."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

DELIVERIES = Counter(
    "firstread_deliveries_total",
    "Attempts at a delivery by kind and outcome (DELIVERED, SKIPPED, FAILED, retry); a wrong file of destinations "
    "counts as kind planning, outcome bad_file.",
    ["kind", "outcome"],
)
DELIVERY_SECONDS = Histogram(
    "firstread_delivery_seconds",
    "Duration of an attempt at a delivery, by kind.",
    ["kind"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
NOTIFICATION_SECONDS = Histogram(
    "firstread_notification_seconds",
    "From the last image of a study to the first successful notice of its flag.",
    ["pipeline"],
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
)
OBJECTS = Counter(
    "firstread_objects_total",
    "DICOM objects made, by kind and outcome; reason says why one was not written.",
    ["kind", "outcome", "reason"],
)
ESCALATIONS = Counter(
    "firstread_escalations_total",
    "Notices of a flag, or of a study that nobody read, beyond the first one.",
    ["pipeline"],
)
