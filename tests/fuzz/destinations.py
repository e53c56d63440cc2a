"""The site's own files: destinations and settings. A wrong one is refused in words, and the last good one stays."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st
from pydantic import ValidationError

from firstread.errors import FirstreadError
from firstread.settings import Settings
from tests.builders.site import settings_in
from tests.fuzz.bounds import Bounds
from tests.fuzz.door import Broken, Door, Feed
from worker.outputs.destinations.file import DestinationsError, DestinationsFile, parse
from worker.outputs.destinations.watch import SETTLE_S, DestinationsWatch

GOOD: Final = """
[[destination]]
name = "pacs"
kind = "dicom"
host = "127.0.0.1"
port = 104
called_ae = "PACS"
"""
LONGEST_LINE: Final = 4000


class Site:
    """A site whose files are written over."""

    def __init__(self, folder: Path) -> None:
        self._config = folder / "firstread.toml"
        self._path = folder / "destinations.toml"
        self._path.write_text(GOOD, encoding="utf-8")
        settings = settings_in(folder / "home", destinations=self._path)
        settings.run_dir.mkdir(parents=True)
        self._now = 1000.0
        self._watch = DestinationsWatch(settings, clock=lambda: self._now, wall=lambda: self._now)
        self._watch.remember()
        self._bounds = Bounds()

    def feed(self, data: bytes) -> str:
        """The same bytes as either file."""
        with self._bounds.kept():
            return f"destinations {self._destinations(data)}, settings {self._settings(data)}"

    def _destinations(self, data: bytes) -> str:
        self._path.write_bytes(data)
        before = self._watch.current()
        read: DestinationsFile | None = None
        try:
            read, outcome = parse(self._path), "good"
        except DestinationsError as error:
            outcome = "refused"
            _require_words(error)
        for _ in range(3):
            self._now += SETTLE_S
            in_force = self._watch.current()
        if in_force != (read or before):
            raise Broken("the destinations in force are neither the file nor the last good ones")
        if (read is None) is not bool(self._watch.complaint):
            raise Broken("the complaint does not say how the file is")
        return outcome

    def _settings(self, data: bytes) -> str:
        self._config.write_bytes(data)
        os.environ["FIRSTREAD_CONFIG"] = str(self._config)
        try:
            Settings().printable()
            return "good"
        except ValidationError:
            return "refused"
        except FirstreadError as error:
            _require_words(error)
            return "refused"
        finally:
            del os.environ["FIRSTREAD_CONFIG"]


def _require_words(error: FirstreadError) -> None:
    if not str(error).strip() or max(map(len, str(error).splitlines())) > LONGEST_LINE:
        raise Broken("a file was refused without a line that a person can read") from error


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Feed]:
    """A site with good files."""
    logging.getLogger("worker.outputs").setLevel(logging.CRITICAL)
    yield Site(folder).feed


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value)


def files() -> st.SearchStrategy[bytes]:
    """Tables that name what there is, with values of every kind."""
    values: st.SearchStrategy[Any] = st.recursive(
        st.one_of(
            st.booleans(),
            st.integers(-1, 70000),
            st.floats(),
            st.text(max_size=12),
            st.sampled_from(
                [
                    2**63 - 1,
                    "pacs",
                    "dicom",
                    "webhook",
                    "email",
                    "stow",
                    "hl7",
                    "https://[",
                    "http://x:99999999/",
                    "PT1S",
                ]
            ),
        ),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["env", "file", "pipelines", "states"]), inner, max_size=3)
        ),
        max_leaves=4,
    )
    keys = [
        "name",
        "kind",
        "host",
        "port",
        "called_ae",
        "url",
        "secret",
        "when",
        "objects",
        "to",
        "sender",
        "tls",
        "codes",
        "character_set",
        "sending_facility",
        "destinations",
        "pipelines",
    ]
    tables = st.tuples(
        st.sampled_from(["[[destination]]", "[[escalation]]", "[destination]"]),
        st.dictionaries(st.sampled_from(keys), values, max_size=7),
    )
    settings = st.dictionaries(st.sampled_from(list(Settings.model_fields)), values, max_size=3)

    def text_of(own: dict[str, Any], parts: list[tuple[str, dict[str, Any]]]) -> bytes:
        lines = [f"{key} = {_toml(value)}" for key, value in own.items()]
        for head, table in parts:
            lines += [head, *(f"{key} = {_toml(value)}" for key, value in table.items())]
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    return st.builds(text_of, settings | st.just({}), st.lists(tables, max_size=3))


DOORS: Final = {"destinations": Door("destinations", opened, files)}
