"""HAProxy with the configuration that ships, its addresses those of a test."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.builders.programs import need
from tests.builders.timing import until

SHIPPED = Path(__file__).resolve().parents[2] / "deploy/haproxy/haproxy.cfg"


@dataclass(frozen=True)
class Balancer:
    """The ports of a balancer."""

    dicom_port: int
    store_port: int


def filled(listeners: Sequence[int], stores: Sequence[int], balancer: Balancer) -> str:
    """The shipped configuration with ports of this machine in the place of its addresses."""
    text = SHIPPED.read_text(encoding="utf-8")
    for name, ports in (("listener", listeners), ("store", stores)):
        lines = "\n".join(f"    server {name}{n} 127.0.0.1:{port}" for n, port in enumerate(ports, 1))
        text, count = re.subn(rf"(    server {name}\d \S+\n?)+", lines + "\n", text)
        assert count == 1, name
    for shipped, port in ((":11112", balancer.dicom_port), (":9000", balancer.store_port)):
        assert text.count(f"bind {shipped}") == 1
        text = text.replace(f"bind {shipped}", f"bind 127.0.0.1:{port}")
    return text


@contextlib.contextmanager
def balanced(folder: Path, balancer: Balancer, listeners: Sequence[int], stores: Sequence[int]) -> Iterator[None]:
    """Run HAProxy in front of these ports."""
    program = need("haproxy", "haproxy")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "haproxy.cfg"
    config.write_text(filled(listeners, stores, balancer), encoding="utf-8")
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-db", "-f", str(config)], stdout=log, stderr=log)
    try:
        until(
            lambda: process.poll() is not None or _connects(balancer.dicom_port),
            20,
            lambda: (folder / "haproxy.log").read_text(errors="replace"),
        )
        assert process.poll() is None, (folder / "haproxy.log").read_text(errors="replace")
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
