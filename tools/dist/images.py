"""The images: built by whatever builder is here, and the command of each one run in it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tools.dist.running import ROOT, NotBuilt, free_port, run

BUILD_LIMIT_S = 3600.0
RUN_LIMIT_S = 900.0
HEALTH_LIMIT_S = 300


@dataclass(frozen=True)
class Image:
    """One of ours; ``deploy/<recipe>`` says how it is made."""

    name: str
    recipe: str
    command: str
    """What it runs, as ``docker-compose.yml`` has it."""


IMAGES = {
    image.name: image
    for image in (
        Image("firstread-listener", "listener.Dockerfile", "listen"),
        Image("firstread-worker", "worker.Dockerfile", "work"),
        Image("firstread-worker-gpu", "worker-gpu.Dockerfile", "work"),
    )
}

SERVES = """
set -eu
firstread migrate
firstread {command} & pid=$!
tries={limit}
until python /opt/firstread/healthcheck.py {port}; do
    kill -0 $pid; tries=$((tries - 1)); [ $tries -gt 0 ]; sleep 1
done
kill -TERM $pid; wait $pid
"""
"""What is run in a container: migrate, then its command until the health check is content, then an orderly end."""


class NoBuilder(Exception):
    """There is nothing here that builds images; the text says what was looked for."""


def find_builder() -> str:
    """``buildah``, ``podman`` or ``docker``, the first that works here. Raises :class:`NoBuilder`."""
    reasons = []
    for name in ("buildah", "podman", "docker"):
        if shutil.which(name) is None:
            reasons.append(f"{name} is not installed")
            continue
        words = [name, "info"]
        if subprocess.run(words, capture_output=True, timeout=60).returncode == 0:
            return name
        reasons.append(f"{name} is installed and does not work here (`{name} info` says why)")
    raise NoBuilder("; ".join(reasons))


def build_image(builder: str, image: Image, options: Sequence[str] = ()) -> None:
    """Build one from its recipe. ``options`` go to the builder, such as where its pip finds packages."""
    words = [builder, "bud" if builder == "buildah" else "build", *options, "-t", image.name]
    run([*words, "-f", f"deploy/{image.recipe}", "."], cwd=ROOT, limit_s=BUILD_LIMIT_S)


def check_image(builder: str, image: Image) -> list[str]:
    """Run its command until its health check is content; lines about what was seen."""
    said = _in_container(builder, image, ["firstread", "--version"]).strip()
    port = free_port()
    script = SERVES.format(command=image.command, port=port, limit=HEALTH_LIMIT_S)
    ports = {"METRICS": port, "DICOM": free_port()}
    env = [f"FIRSTREAD_{name}_PORT={number}" for name, number in ports.items()]
    _in_container(builder, image, ["env", *env, "sh", "-c", script])
    return [f"{image.name}: {said}; firstread {image.command} became healthy and ended in order"]


def _in_container(builder: str, image: Image, command: Sequence[str]) -> str:
    """What a command prints in a new container of an image, as the image's own user."""
    if builder != "buildah":
        return run([builder, "run", "--rm", image.name, *command], cwd=ROOT, limit_s=RUN_LIMIT_S)
    container = run([builder, "from", "--pull-never", f"localhost/{image.name}"], cwd=ROOT).strip()
    try:
        return run([builder, "run", container, "--", *command], cwd=ROOT, limit_s=RUN_LIMIT_S)
    finally:
        run([builder, "rm", container], cwd=ROOT)


def build_and_check(names: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """Build some images and try each. Raises :class:`NoBuilder` and :class:`NotBuilt`."""
    unknown = [name for name in names if name not in IMAGES]
    if unknown:
        raise NotBuilt(f"no such image: {', '.join(unknown)} (there are {', '.join(IMAGES)})")
    builder = find_builder()
    lines = []
    for name in names:
        build_image(builder, IMAGES[name], options)
        lines += check_image(builder, IMAGES[name])
    return [f"built by {builder}", *lines]
