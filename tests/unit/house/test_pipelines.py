"""Pipelines are described once: no other table is keyed by their names, and no other code asks for them by name."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from firstread.pipelines import PIPELINES, names

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("firstread", "firstread_cli", "firstread_web", "dicom_listener", "worker", "training")
TABLES = {"firstread/pipelines.py", "worker/pipelines/registry.py", "training/pipelines.py"}
"""Where names of pipelines may be keys: the descriptions, and what only the worker or only training knows."""

OWN_FOLDERS = {
    **{f"worker/pipelines/{name}/": name for name in names()},
    **{f"training/{name}/": name for name in names()},
    "training/chest/": "chest_xray",
}
"""A pipeline's own code may name it."""

KNOWN = {
    ("firstread_cli/main.py", "dermoscopy"),  # a command of that name
    ("firstread_cli/doctor/phantom_study.py", "head_ct"),  # the self-test sends a head
    ("training/fit/callbacks.py", "chest_xray"),  # what is measured while it trains
    ("training/package/plain.py", "head_ct"),  # slices make a study
    ("training/chest/gate.py", "head_ct"),  # a data set of pictures that are no chests
}


def keys_of(tree: ast.AST, wanted: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Names that are keys of a mapping, or that something is compared with, and their lines."""
    for node in ast.walk(tree):
        candidates: list[ast.expr | None] = []
        if isinstance(node, ast.Dict):
            candidates = list(node.keys)
        elif isinstance(node, ast.Compare):
            candidates = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            candidates = [node.value]
        elif isinstance(node, ast.Subscript):
            candidates = [node.slice]
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id == "dict":
                yield from ((k.arg, node.lineno) for k in node.keywords if k.arg in wanted and k.arg is not None)
            if isinstance(function, ast.Attribute) and function.attr in ("fromkeys", "get", "setdefault", "pop"):
                candidates = list(node.args[:1])
        for candidate in candidates:
            for part in ast.walk(candidate) if candidate is not None else ():
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value in wanted:
                    yield part.value, part.lineno


def offences(source: str, path: str, wanted: frozenset[str]) -> list[str]:
    """Lines of a file that name a pipeline where only its description may."""
    own = next((name for folder, name in OWN_FOLDERS.items() if path.startswith(folder)), None)
    if path in TABLES:
        return []
    return [
        f"{path}:{line} {name}"
        for name, line in keys_of(ast.parse(source), wanted)
        if name != own and (path, name) not in KNOWN
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_table_is_keyed_by_pipelines(package: str) -> None:
    wanted = frozenset(names())
    strays = [
        line
        for file in sorted((ROOT / package).rglob("*.py"))
        for line in offences(file.read_text(encoding="utf-8"), str(file.relative_to(ROOT)), wanted)
    ]
    assert strays == []


@pytest.mark.parametrize(
    "code",
    [
        'TABLE = {"head_ct": 1}',
        'TABLE = {("head_ct", "any"): 1}',
        "TABLE = dict(head_ct=1)",
        'TABLE = dict.fromkeys(("head_ct", "chest_xray"), 1)',
        'TABLE["head_ct"] = 1',
        'if pipeline == "head_ct": pass',
        'if pipeline in ("head_ct", "chest_xray"): pass',
        'match pipeline:\n    case "head_ct": pass',
    ],
)
def test_a_table_elsewhere_is_seen(code: str) -> None:
    wanted = frozenset(names())
    assert offences(code, "worker/outputs/words.py", wanted)
    assert not offences(code, "firstread/pipelines.py", wanted)


def test_descriptions_do_not_contradict_each_other() -> None:
    def twice(values: list[str]) -> set[str]:
        return {value for value, count in Counter(values).items() if count > 1}

    assert twice(list(names())) == set()
    assert twice([term.name for pipeline in PIPELINES for term in pipeline.terms]) == set()
    assert twice([modality for pipeline in PIPELINES for modality in pipeline.modalities]) == set()
    assert twice([task for pipeline in PIPELINES for task in (*pipeline.tasks, *pipeline.baselines)]) == set()
    assert [pipeline.priority for pipeline in PIPELINES] == sorted(pipeline.priority for pipeline in PIPELINES)
    for pipeline in PIPELINES:
        assert pipeline.leading in {term.name for term in pipeline.findings}
        assert not pipeline.modalities & pipeline.alone
        assert (ROOT / "worker" / "pipelines" / pipeline.name / "pipeline.py").is_file()
