"""The GPU of a process: how busy it is, and how full.

Read through NVIDIA's management library (``nvidia-ml-py``, of the extra ``gpu``). Without the library, a driver or a
GPU there is nothing to read, and nothing is shown.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"

FAMILIES: Final = (
    ("firstread_gpu_busy_ratio", "Share of the last moments in which the worker's GPU was at work; none without one."),
    ("firstread_gpu_memory_used_bytes", "Memory of the worker's GPU that is taken, by whomever; none without one."),
    ("firstread_gpu_memory_bytes", "Memory of the worker's GPU; none without one."),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment."""

    busy: float
    used_bytes: int
    total_bytes: int

    @property
    def free_bytes(self) -> int:
        """Memory that nobody has taken."""
        return self.total_bytes - self.used_bytes


def read_gpu() -> GpuState | None:
    """The first GPU that this process may use; None where there is none, or none can be read."""

    def handles(pynvml: Any) -> list[Any]:
        handle = _handle(pynvml, visible_gpu(os.environ.get(VISIBLE)))
        return [] if handle is None else [handle]

    return next(iter(_read(handles)), None)


def read_gpus() -> list[GpuState]:
    """Every GPU of the machine, by its number; empty where there is none, or none can be read."""
    return _read(
        lambda pynvml: [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    )


def _read(handles: Callable[[Any], list[Any]]) -> list[GpuState]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_state(pynvml, handle) for handle in handles(pynvml)]
    except pynvml.NVMLError as error:
        log.warning("the GPU cannot be read", extra={"reason": type(error).__name__})
        return []
    finally:
        pynvml.nvmlShutdown()


def _state(pynvml: Any, handle: Any) -> GpuState:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100.0
    return GpuState(busy, int(memory.used), int(memory.total))


def visible_gpu(names: str | None) -> int | str | None:
    """The first GPU that ``CUDA_VISIBLE_DEVICES`` names: its number or its UUID; 0 where it is not set.

    None where it hides all of them (empty, or -1 in the first place).
    """
    if names is None:
        return 0
    first = names.split(",")[0].strip()
    if not first or first.startswith("-"):
        return None
    return int(first) if first.isdigit() else first


def _handle(pynvml: Any, gpu: int | str | None) -> Any:
    if gpu is None:
        return None
    if isinstance(gpu, int):
        return pynvml.nvmlDeviceGetHandleByIndex(gpu) if gpu < pynvml.nvmlDeviceGetCount() else None
    return pynvml.nvmlDeviceGetHandleByUUID(gpu)


class GpuCollector:
    """Gauges of the GPU: no sample where there is none, so that nobody takes its absence for rest."""

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Names without a look at the device, for the registry."""
        return [GaugeMetricFamily(name, help_text) for name, help_text in FAMILIES]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The GPU as it is now."""
        state = read_gpu()
        families = list(self.describe())
        if state is not None:
            for family, value in zip(families, (state.busy, state.used_bytes, state.total_bytes), strict=True):
                family.add_metric([], value)
        return families
