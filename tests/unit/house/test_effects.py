"""What lies on the way of a study has its effects through the interfaces that exist once, and under a name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from firstread import effects
from firstread.effects import TABLE, Effect, FileEffects

ROOT = Path(__file__).resolve().parents[3]
WAY = (
    "dicom_listener",
    "worker/process",
    "worker/routing",
    "worker/scoring",
    "worker/outputs/deliveries",
    "worker/outputs/objects",
    "worker/reading.py",
    "firstread/actions",
    "firstread/queue.py",
    "firstread/records/studies.py",
    "firstread/records/processes.py",
    "firstread/storage",
)
"""Files and folders of the way."""
BARE = frozenset({"rename", "replace", "fsync", "unlink", "rmtree", "sync_dir"})
"""Calls that only :mod:`firstread.storage.disk` makes, of ``os``, ``shutil`` and paths."""
ALLOWED = {
    "firstread/storage/disk.py": BARE,
    # copies of files that the store holds
    "firstread/storage/store.py": {"rename", "unlink"},
    # a folder beside a claimed archive, for copies; the last copy of a member
    "dicom_listener/inbox/admission.py": {"rmtree", "unlink"},
}
CLOCKS = {"time.monotonic", "time.time", "datetime.now", "datetime.utcnow"}
CLOCKS_OF_THE_HOST = {
    # between the processes of one host, or how long a connection takes
    "worker/process/heartbeat.py",
    "worker/process/running.py",
    "worker/process/supervisor.py",
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for place in WAY:
        path = ROOT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            yield str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str, str]]:
    """Every call of an attribute: the node, what it is of, and its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node, ast.unparse(node.func.value), node.func.attr


def test_files_change_through_the_disk_alone() -> None:
    strays = []
    for name, tree in sources():
        for node, of, attribute in calls(tree):
            bare = attribute in BARE and of != "disk" and not of.endswith("_disk")
            if bare and attribute == "replace" and of != "os":
                continue  # of text and of times
            if bare and attribute not in ALLOWED.get(name, ()):
                strays.append(f"{name}:{node.lineno} {of}.{attribute}")
    assert strays == []


def test_every_commit_has_a_name() -> None:
    strays = [
        f"{name}:{node.lineno}"
        for name, tree in sources()
        for node, of, attribute in calls(tree)
        if attribute == "write" and of.split(".")[-1] in {"db", "_db"} and not node.args
    ]
    assert strays == []


def test_time_comes_from_the_clock() -> None:
    strays = [
        f"{name}:{node.lineno} {of}.{attribute}"
        for name, tree in sources()
        if name not in CLOCKS_OF_THE_HOST
        and not name.startswith(("dicom_listener/peers/", "dicom_listener/scp/", "dicom_listener/crew/"))
        for node, of, attribute in calls(tree)
        if f"{of}.{attribute}" in CLOCKS
    ]
    assert strays == []


def test_every_effect_is_used() -> None:
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("firstread", "dicom_listener", "worker")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "effects.py"
    )
    named = {name: value for name, value in vars(effects).items() if isinstance(value, Effect | FileEffects)}
    assert [name for name in named if f"effects.{name}" not in text] == []
    of_groups = [e for value in named.values() if isinstance(value, FileEffects) for e in vars(value).values()]
    alone = [value for value in named.values() if isinstance(value, Effect)]
    assert {e.name for e in (*of_groups, *alone)} == set(TABLE)
