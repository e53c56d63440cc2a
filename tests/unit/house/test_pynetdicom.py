"""The private names of pynetdicom that we use: each is listed, and the installed version has it as it was."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pynetdicom

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("firstread", "firstread_cli", "firstread_web", "dicom_listener", "worker", "training", "tools")
LIBRARY = Path(pynetdicom.__file__).parent

PRIVATE: dict[str, tuple[str, ...]] = {
    "_STORAGE_CLASSES": ("sop_class._STORAGE_CLASSES",),
    "_accepted_cx": ("association.Association._accepted_cx: dict[int, PresentationContext]",),
    "_config": ("module _config",),
    "_globals": ("module _globals",),
    "_idle_timer": ("dul.DULServiceProvider._idle_timer",),
    "_is_connected": ("transport.AssociationSocket._is_connected",),
    "_is_paused": ("association.Association._is_paused: bool",),
    "_is_transport_event": ("dul.DULServiceProvider._is_transport_event(self) -> bool",),
    "_kill": ("association.Association._kill: bool",),
    "_kill_thread": ("dul.DULServiceProvider._kill_thread",),
    "_process_recv_primitive": ("dul.DULServiceProvider._process_recv_primitive(self) -> bool",),
    "_reactor_checkpoint": ("association.Association._reactor_checkpoint: threading.Event",),
    "_read_pdu_data": ("dul.DULServiceProvider._read_pdu_data(self) -> None",),
    "_rejected_cx": ("association.Association._rejected_cx: list[PresentationContext]",),
    "_run_reactor": ("association.Association._run_reactor(self) -> None",),
    "_send": ("dul.DULServiceProvider._send(self, pdu: _PDUType) -> None",),
    "_sent_release": ("association.Association._sent_release: bool",),
    "_shutdown_socket": ("transport.AssociationSocket._shutdown_socket(self) -> None",),
}
"""Where pynetdicom defines each name that we use, with its signature or its type."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def definitions() -> dict[str, set[str]]:
    """Every private name of the installed pynetdicom, with the places that define it."""
    places: dict[str, set[str]] = {}
    for path in sorted(LIBRARY.glob("*.py")):
        if is_private(path.stem):
            places.setdefault(path.stem, set()).add(f"module {path.stem}")
        tree = ast.parse(path.read_text())
        for owner, node in _nodes(tree, path.stem):
            for name, text in _defined(node):
                if is_private(name):
                    places.setdefault(name, set()).add(f"{owner}.{text}")
    return places


def _nodes(tree: ast.Module, module: str) -> Iterator[tuple[str, ast.AST]]:
    """What is defined in a module, in its classes, and on ``self`` in their methods."""
    for node in tree.body:
        yield module, node
        if isinstance(node, ast.ClassDef):
            owner = f"{module}.{node.name}"
            for inner in node.body:
                yield owner, inner
                if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                    yield from ((owner, statement) for statement in ast.walk(inner))


def _defined(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.FunctionDef):
        prefix = "".join(f"@{ast.unparse(d)} " for d in node.decorator_list)
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        yield node.name, f"{prefix}{node.name}({ast.unparse(node.args)}){returns}"
    elif isinstance(node, ast.AnnAssign):
        name = _target(node.target)
        yield name, f"{name}: {ast.unparse(node.annotation)}"
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            yield _target(target), _target(target)


def _target(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def used(known: set[str]) -> dict[str, str]:
    """Private names of pynetdicom in our sources, each with a place that uses it.

    A name that a class of ours defines itself, without a base class of pynetdicom's, is its own.
    """
    places: dict[str, str] = {}
    for path in (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))):
        source = path.read_text(encoding="utf-8")
        if "pynetdicom" not in source and not {"peers", "scp"} & set(path.parts):
            continue
        for name in _used_in(ast.parse(source), set()):
            if name in known:
                places.setdefault(name, str(path.relative_to(ROOT)))
    return places


def _used_in(node: ast.AST, imported: set[str]) -> Iterator[str]:
    imported |= {
        alias.asname or alias.name
        for part in ast.walk(node)
        if isinstance(part, ast.ImportFrom) and (part.module or "").startswith("pynetdicom")
        for alias in part.names
    }
    own_classes = [
        part
        for part in ast.walk(node)
        if isinstance(part, ast.ClassDef) and not imported & {ast.unparse(base) for base in part.bases}
    ]
    own = {id(part) for cls in own_classes for part in ast.walk(cls)}
    for part in ast.walk(node):
        if isinstance(part, ast.ImportFrom) and (part.module or "").startswith("pynetdicom"):
            names = [*(part.module or "").split("."), *(alias.name for alias in part.names)]
            yield from filter(is_private, names)
        elif isinstance(part, ast.Attribute) and is_private(part.attr):
            on_self = isinstance(part.value, ast.Name) and part.value.id == "self"
            if not (on_self and id(part) in own):
                yield part.attr
        elif isinstance(part, ast.FunctionDef) and is_private(part.name) and id(part) not in own:
            yield part.name


def test_every_private_name_that_is_used_is_listed() -> None:
    known = definitions()
    places = used(set(known))
    assert {name: place for name, place in places.items() if name not in PRIVATE} == {}
    assert set(PRIVATE) - set(places) == set(), "no longer used"


def test_the_installed_version_has_each_of_them_as_it_was() -> None:
    known = definitions()
    assert {name: tuple(sorted(known.get(name, ()))) for name in PRIVATE} == PRIVATE


def test_private_modules_hold_what_we_set_there() -> None:
    from pynetdicom import _config, _globals

    assert isinstance(_config.LOG_HANDLER_LEVEL, str)
    assert isinstance(_config.CODECS, tuple)
    assert {"UI", "AE"} <= _config.VALIDATORS.keys()
    assert _globals.MODE_ACCEPTOR == "acceptor"
