"""What is counted of child processes and threads. To be imported after the metrics' folder is set."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

FAILING = Gauge(
    "firstread_failing_processes",
    "1 while a supervised process ends right after each start; it is tried again, once a minute at last.",
    ["process"],
    multiprocess_mode="livemax",
)
THREAD_DEATHS = Counter(
    "firstread_thread_deaths_total", "Threads that an error of ours ended, and that began again, by name.", ["thread"]
)
