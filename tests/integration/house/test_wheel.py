"""The wheel: what is in it, and that it runs away from the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
PACKAGES = ("firstread", "firstread_cli", "firstread_web", "dicom_listener", "worker", "training")
DATA = ("demo", "migrations", "models")
FOLDERS = (*PACKAGES, *DATA)
NOT_SHIPPED = ("tools", "tests", "docs", "deploy")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, with what is installed here and nothing else."""
    source = tmp_path_factory.mktemp("source")
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in (*FOLDERS, *NOT_SHIPPED):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(target), str(source)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    (path,) = target.glob("firstread-*.whl")
    return path


def test_the_wheel_carries_code_types_and_shipped_data_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    suffixes = {".py", ".npz", ".toml", ".html", ".json", ".css", ".j2"}
    for folder in PACKAGES:
        assert f"{folder}/py.typed" in names
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in suffixes and "__pycache__" not in path.parts:
                assert path.relative_to(ROOT).as_posix() in names
    for folder in DATA:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"firstread/_data/{path.relative_to(ROOT).as_posix()}" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_runs_away_from_the_clone(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(place)
    home = tmp_path / "home"
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("FIRSTREAD_", "PYTHON"))}
    environ |= {"PYTHONPATH": str(place), "FIRSTREAD_HOME": str(home)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("-c", "import firstread.settings as s; print(s.__file__); print(s.default_models_dir())").split()
    assert where == [str(place / "firstread/settings/__init__.py"), str(place / "firstread/_data/models")]
    assert "7 cases" in run("-c", "from firstread_cli.demo.cases import demo_cases; print(len(demo_cases()), 'cases')")
    assert "database is at" in run("-m", "firstread_cli.main", "migrate")
    assert (home / "firstread.sqlite").is_file()
