"""The wheel: built from a tree, installed into an environment of its own, and its commands run far from the tree."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from firstread.settings import ENV_PREFIX
from tools.dist.running import ROOT, NotBuilt, run

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
TREES = ("firstread", "firstread_cli", "firstread_web", "dicom_listener", "worker", "training")
DATA = ("demo", "migrations", "models")
LOCK = "cpu"
INSTALL_LIMIT_S = 1800.0
DEMO_LIMIT_S = 900.0


def build_wheel(tree: Path, out: Path) -> Path:
    """Build the wheel of a tree with the build tools of this interpreter, from a copy: the tree is left as it is."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "source", Path(folder) / "made"
        source.mkdir()
        for name in SOURCES:
            shutil.copy(tree / name, source)
        for name in (*TREES, *DATA):
            if (tree / name).is_dir():
                shutil.copytree(tree / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        run([*pip, "--wheel-dir", made, source], cwd=Path(folder))
        (wheel,) = made.glob("firstread-*.whl")
        return Path(shutil.move(wheel, out / wheel.name))


def environ(**values: str) -> dict[str, str]:
    """The environment without what this tree and this site put into it, and with values of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith((ENV_PREFIX, "PYTHON", "VIRTUAL_ENV"))}
    return kept | values


def make_environment(folder: Path, wheel: Path) -> Path:
    """An environment with the locked dependencies and the wheel, as an administrator makes it; returns its ``bin``."""
    run([sys.executable, "-m", "venv", "--clear", folder], cwd=ROOT)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", "--no-deps"]
    lock = ROOT / "requirements" / f"{LOCK}.txt"
    run([*pip, "--require-hashes", "--prefer-binary", "-r", lock], cwd=folder, env=environ(), limit_s=INSTALL_LIMIT_S)
    install_wheel(folder / "bin", wheel)
    return folder / "bin"


def install_wheel(bin_folder: Path, wheel: Path) -> None:
    """Put a wheel in the place of the version that an environment has."""
    pip = [str(bin_folder / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall"]
    run([*pip, wheel], cwd=bin_folder, env=environ())


def check_commands(bin_folder: Path, wheel: Path) -> list[str]:
    """Run what the wheel brings, from an empty folder; lines about what was seen."""
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = environ(FIRSTREAD_HOME=str(folder / "home"), PATH=f"{bin_folder}:{os.environ['PATH']}")
        said = run(["firstread", "--version"], cwd=folder, env=env)
        if version not in said:
            raise NotBuilt(f"the wheel is {version}, and its command says {said.strip()}")
        names = run(["python", "-c", "from firstread_cli.main import COMMANDS; print(*COMMANDS)"], cwd=folder, env=env)
        commands = names.split()
        for command in commands:
            run(["firstread", command, "--help"], cwd=folder, env=env)
        where = run(["python", "-c", "import firstread; print(firstread.__file__)"], cwd=folder, env=env)
        if not Path(where.strip()).is_relative_to(bin_folder.parent):
            raise NotBuilt(f"the command runs {where.strip()}, not what was installed")
        run(["firstread", "migrate"], cwd=folder, env=env)
        run(["firstread", "demo", "--limit", f"{DEMO_LIMIT_S:g}"], cwd=folder, env=env, limit_s=2 * DEMO_LIMIT_S)
    return [f"firstread {version}: {len(commands)} commands say what they do, migrate and demo ran"]


def unpack(wheel: Path, folder: Path) -> Path:
    """Lay a wheel open in a folder, which then stands in ``PYTHONPATH`` before the dependencies that are here."""
    zipfile.ZipFile(wheel).extractall(folder)
    return folder
