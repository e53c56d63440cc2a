"""What supervisors count of their child processes. To be imported after the metrics' folder is set."""

from __future__ import annotations

from prometheus_client import Gauge

FAILING = Gauge(
    "firstread_failing_processes",
    "1 while a supervised process ends right after each start; it is tried again, once a minute at last.",
    ["process"],
    multiprocess_mode="livemax",
)
