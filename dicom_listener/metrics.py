"""What the intake counts. Only types that add up over processes are used."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

RECEIVED_INSTANCES: Final = Counter(
    "firstread_received_instances_total", "Instances received, by outcome: stored, repeat, changed or own.", ["outcome"]
)
RECEIVED_BYTES: Final = Counter("firstread_received_bytes_total", "Bytes of encoded data sets received.")
ASSOCIATIONS: Final = Counter(
    "firstread_associations_total",
    "Associations and STOW-RS requests that ended, by outcome: released, aborted or rejected.",
    ["outcome"],
)
ASSOCIATION_REFUSALS: Final = Counter(
    "firstread_association_refusals_total",
    "Connections and requests that were turned away at a network door, by reason.",
    ["reason"],
)
STOW_REQUESTS: Final = Counter(
    "firstread_stow_requests_total",
    "STOW-RS requests that ended, by outcome: stored (200), partly (202), failed (nothing stored, or a body that broke "
    "the rules), broken_off or turned_away.",
    ["outcome"],
)
CERTIFICATE_FAILURES: Final = Counter(
    "firstread_tls_certificate_failures_total",
    "Changes of the TLS certificate's files that were not taken (unusable, or not valid now); what was served stayed.",
)
OPEN_ASSOCIATIONS: Final = Gauge(
    "firstread_open_associations", "Associations and STOW-RS requests that are open.", multiprocess_mode="livesum"
)
INTAKE_REFUSALS: Final = Counter(
    "firstread_intake_refusals_total", "Objects and files that could not become an instance, by reason.", ["reason"]
)
INBOX_WATCH_ENDS: Final = Counter(
    "firstread_inbox_watch_ends_total", "Times that the watch of the inbox ended and had to be started again."
)
STORE_SECONDS: Final = Histogram(
    "firstread_store_seconds",
    "Seconds from the last byte of an object to its response.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
STUDY_CLOSES: Final = Counter(
    "firstread_study_closes_total", "Revisions closed, by reason: released, quiet or max_wait.", ["reason"]
)
EARLY_CLOSES: Final = Counter(
    "firstread_early_closes_total",
    "Studies closed at once, since their sender's came whole, by outcome: closed; and went_on, those of which an image "
    "came after all.",
    ["outcome"],
)
DOORBELLS: Final = Counter(
    "firstread_published_doorbells_total", "Messages published to the broker, by outcome: rung or failed.", ["outcome"]
)
ROW_FAILURES: Final = Counter(
    "firstread_row_failures_total", "Groups of rows that the database did not take, by reason.", ["reason"]
)
PROCESS_ENDS: Final = Counter(
    "firstread_listener_process_ends_total", "Processes of the listener that ended by themselves and were replaced."
)
