"""Every code in the source that may reach a row, a view, a metric or a log as a reason or a warning."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
SPOKEN = re.compile(r"reason|REASON")


def codes_in_source() -> dict[str, str]:
    """Codes by the file that has each: of exceptions, keywords, assignments, enumerations and constants."""
    places: dict[str, str] = {}
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in _files()}
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fixed = {node.name for node in classes if _has_reason(node)}
    coded = {node.name for node in classes if _takes_reason(node)}
    coded |= {node.name for node in classes if {base.id for base in node.bases if isinstance(base, ast.Name)} & coded}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            for code in _codes(node, coded - fixed):
                if CODE.fullmatch(code):
                    places.setdefault(code, str(path.relative_to(ROOT)))
    return places


def _files() -> list[Path]:
    folders = ("firstread", "firstread_web", "dicom_listener", "worker")
    return [path for folder in folders for path in (ROOT / folder).rglob("*.py")]


def _has_reason(node: ast.ClassDef) -> bool:
    """A class whose ``reason`` is fixed."""
    return any(_names(line) == ["reason"] for line in node.body)


def _takes_reason(node: ast.ClassDef) -> bool:
    """An exception that is given its ``reason`` as its first argument."""
    makers = [line for line in node.body if isinstance(line, ast.FunctionDef) and line.name == "__init__"]
    return any(maker.args.args[1:] and maker.args.args[1].arg == "reason" for maker in makers)


def _codes(node: ast.AST, coded: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in coded:
            yield from _strings(node.args[0] if node.args else None)
        yield from (code for word in node.keywords if word.arg == "reason" for code in _strings(word.value))
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple | ast.IfExp):
        yield from _faults(node.value)
    if isinstance(node, ast.ClassDef) and {"Reason", "Caution"} & {node.name}:
        yield from (code for line in node.body if isinstance(line, ast.Assign) for code in _strings(line.value))
    for name in _names(node):
        value = getattr(node, "value", None)
        if SPOKEN.search(name):
            yield from _strings(value)
        elif isinstance(value, ast.Constant) and value.value == name.lower() and name.isupper():
            yield name.lower()


def _faults(node: ast.expr) -> Iterator[str]:
    """``return "code", jobs`` of the supervisor, one way or the other."""
    if isinstance(node, ast.IfExp):
        yield from _faults(node.body)
        yield from _faults(node.orelse)
    elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
        code, jobs = node.elts
        if isinstance(jobs, ast.Name | ast.Call) and "_" in str(getattr(code, "value", "")):
            yield from _strings(code)


def _names(node: ast.AST) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [t.id if isinstance(t, ast.Name) else t.attr if isinstance(t, ast.Attribute) else "" for t in targets]


def _strings(node: ast.AST | None) -> Iterator[str]:
    """String constants of an expression, both ways of a choice and members of a set included."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _strings(node.body)
        yield from _strings(node.orelse)
    elif isinstance(node, ast.BoolOp):
        yield from (code for value in node.values for code in _strings(value))
    elif isinstance(node, ast.Set | ast.Tuple | ast.List):
        yield from (code for value in node.elts for code in _strings(value))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "frozenset":
        yield from (code for value in node.args for code in _strings(value))
