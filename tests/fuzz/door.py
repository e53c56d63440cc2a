"""A door that strangers' bytes come in by."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

CORPUS: Final = Path(__file__).resolve().parent / "corpus"

Feed = Callable[[bytes], str]
"""Takes one input and says what came of it, in a word; raises :class:`Broken`."""


class Broken(AssertionError):
    """A promise that an input broke.

    Attributes
    ----------
    data : bytes or None
        The input, where it is an earlier one than that which was just given.
    """

    def __init__(self, what: str, data: bytes | None = None) -> None:
        super().__init__(what)
        self.data = data


@dataclass(frozen=True)
class Door:
    """A door.

    Attributes
    ----------
    opened : callable
        Opens it in a folder of its own: a context that gives the :data:`Feed`.
    structures : callable
        Gives inputs that are well-formed for the most part, so that what lies behind the first check is reached too.
    longest : int
        Most bytes of an input.
    """

    name: str
    opened: Callable[[Path], AbstractContextManager[Feed]]
    structures: Callable[[], SearchStrategy[bytes]]
    longest: int = 64 * 2**10

    def corpus(self) -> dict[str, bytes]:
        """The inputs that are kept, by name of file."""
        return {path.name: path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())}


MODULES: Final = {
    "upper_layer": "upper_layer",
    "data_set": "data_set",
    "jpeg": "code_streams",
    "jpeg_ls": "code_streams",
    "jpeg_2000": "code_streams",
    "rle": "code_streams",
    "zip": "archives",
    "picture": "pictures",
    "package": "packages",
    "destinations": "destinations",
    "stow": "bodies",
    "http": "endpoint",
    "page": "endpoint",
}
"""Doors, and the modules that open them."""


def door_of(name: str) -> Door:
    """The door of a name; its module is loaded here, and what it loads with it."""
    doors: dict[str, Door] = importlib.import_module(f"tests.fuzz.{MODULES[name]}").DOORS
    return doors[name]


@contextmanager
def place_of_its_own() -> Iterator[Path]:
    """A folder in memory where there is one: a file that is synced a thousand times wears no disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="firstread-fuzz-", dir=memory if memory.is_dir() else None) as place:
        yield Path(place)
