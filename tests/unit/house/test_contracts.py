"""The rules of the house that a linter alone does not see: imports at run time, pipelines' shape, and the locks."""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import grimp
import pytest

from worker.pipelines.registry import REGISTRY, PipelineRow

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ("cpu", "gpu", "jax", "listener", "test")
FIVE = ["select", "gate", "preprocess", "infer", "interpret"]

PROBE = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({m.split(".")[0] for m in sys.modules})))
"""


def modules_of(package: str) -> list[str]:
    """The package and every module below it, by their dotted names."""
    folder = ROOT.joinpath(*package.split("."))
    return [package, *(m.name for m in pkgutil.walk_packages([str(folder)], package + "."))]


def loaded_by(names: list[str]) -> set[str]:
    """Top-level modules that a fresh interpreter holds after importing ``names``."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *names], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_every_folder_whose_style_is_checked_has_its_types_checked_too() -> None:
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["packages"]
    sources = re.search(r"^SOURCES := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sources is not None
    assert set(checked) == {name for name in sources[1].split() if not name.endswith(".py")}


def test_import_contract() -> None:
    """import-linter's view of the table of floors, imports inside functions included."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("dicom_listener", {"tensorflow", "keras", "worker", "training"}),
        ("worker.pipelines", {"tensorflow", "keras", "celery", "dicom_listener", "training"}),
        ("worker.packages", {"tensorflow", "keras", "celery", "dicom_listener", "training"}),
        ("training", {"tensorflow", "keras", "celery", "dicom_listener"}),
    ],
)
def test_importing_a_package_stays_light(package: str, never: set[str]) -> None:
    assert loaded_by(modules_of(package)) & never == set()


def test_importing_the_ground_floor_stays_light() -> None:
    above = {"firstread_cli", "firstread_web", "tensorflow", "keras", "dicom_listener", "worker", "training"}
    assert loaded_by(modules_of("firstread")) & above == set()


def test_the_command_line_imports_nothing_until_a_command_runs() -> None:
    modules = modules_of("firstread_cli")
    assert loaded_by(modules) & {"tensorflow", "keras", "celery"} == set()
    heavy = {"models", "optimize", "training", "experiments", "dermoscopy"}
    light = [name for name in modules if name.rpartition(".")[2] not in heavy]
    assert "firstread_cli.main" in light
    assert loaded_by(light) & {"worker", "training"} == set()


@pytest.mark.parametrize("row", REGISTRY, ids=lambda row: row.name)
def test_a_pipeline_is_five_functions_in_order(row: PipelineRow) -> None:
    steps = row.load()
    assert [field.name for field in fields(steps)] == FIVE
    assert all(callable(getattr(steps, name)) for name in FIVE)


def test_pipelines_import_what_they_share_and_never_each_other() -> None:
    graph = grimp.build_graph("worker", cache_dir=None)
    folder = "worker.pipelines"
    pipelines = {row.module.rpartition(".")[0] for row in REGISTRY}
    assert all(pipeline in graph.modules for pipeline in pipelines)
    modules = {m for m in graph.modules if m.startswith(f"{folder}.")}
    of_pipelines = {m: p for p in pipelines for m in modules if m == p or m.startswith(f"{p}.")}
    strays = [
        f"{module} -> {imported}"
        for module in modules
        for imported in graph.find_modules_directly_imported_by(module)
        if of_pipelines.get(imported) not in (None, of_pipelines.get(module))
        or (module in of_pipelines and imported in (f"{folder}.runner", f"{folder}.registry"))
    ]
    assert strays == []


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_with_hashes_and_names_no_index(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8").splitlines()
    kinds = (r"[a-z0-9._-]+==\S+( ; [^\\]+)? \\", r"    --hash=sha256:[0-9a-f]{64}( \\)?", r"    #.*")
    strange = [line for line in lines if not any(re.fullmatch(kind, line) for kind in kinds)]
    assert strange == []
    assert not re.search(r"://|--(extra-)?index|--find-links", "\n".join(lines))
    assert len(pins(lock)) > 50


def test_locks_agree_and_hold_what_the_project_asks_for() -> None:
    locked = {lock: pins(lock) for lock in LOCKS}
    for lock in LOCKS:
        differing = {n: (v, locked["cpu"][n]) for n, v in locked[lock].items() if locked["cpu"].get(n, v) != v}
        assert differing == {}, lock
    assert "tensorflow-cpu" in locked["cpu"]
    assert {"tensorflow", "nvidia-cudnn-cu12"} <= set(locked["gpu"])
    assert not {"tensorflow", "tensorflow-cpu", "keras"} & set(locked["listener"])
    assert not {"tensorflow", "tensorflow-cpu"} & set(locked["jax"])

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~ ;]", r, maxsplit=1)[0].lower() for r in requirements}

    base = names(project["dependencies"]) | names(extras["s3"])
    assert base <= set(locked["listener"])
    assert base | names(extras["cpu"]) | names(extras["train"]) <= set(locked["cpu"])
    assert names(project["dependencies"]) | names(extras["jax"]) | names(extras["train"]) <= set(locked["jax"])
    assert base | names(extras["gpu"]) | names(extras["train"]) <= set(locked["gpu"])
    assert base | names(extras["test"]) <= set(locked["test"])
