"""Who is told of results: a TOML file of destinations, rules and escalation lists."""

from __future__ import annotations

import os
import threading
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from firstread.errors import FirstreadError
from firstread.settings import Settings


class DestinationsError(FirstreadError):
    """The file of destinations cannot be used; the text says where."""

    exit_code = 2


class Rule(BaseModel):
    """Which results a destination gets. Everything named must hold; what is left out does not restrict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipelines: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    """At least one of these is positive: flagged, or at its threshold."""
    flagged: bool = False
    """Only results that raise or confirm a flag."""
    states: tuple[Literal["DONE", "REJECTED", "FAILED"], ...] = ("DONE",)


class _Destination(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    when: Rule = Rule()
    timeout_s: float = Field(30.0, gt=0, le=600)
    max_attempts: int = Field(10, ge=1, le=100)
    backoff_s: float = Field(5.0, gt=0)
    """Wait after the first failure; doubled with each, up to ``backoff_max_s``."""
    backoff_max_s: float = Field(900.0, gt=0)


class Secret(BaseModel):
    """A secret, by the name of an environment variable or of a file: never in the file of destinations itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("give either env or file")
        return self

    def value(self) -> SecretStr:
        """The secret itself. Raises :class:`DestinationsError` where it is not there."""
        if self.env is not None:
            found = os.environ.get(self.env, "")
        else:
            assert self.file is not None
            try:
                found = self.file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise DestinationsError(f"the secret file {self.file} cannot be read ({error.strerror})") from error
        if not found:
            raise DestinationsError(f"the secret in {self.env or self.file} is empty")
        return SecretStr(found)


class Tls(BaseModel):
    """TLS of a DICOM association (PS3.15 annex B). The peer's certificate is always checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca_file: Path | None = None
    """Authority of the peer's certificate; without one, those of the system."""
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None
    """Name in the peer's certificate, where it is not ``host``."""


class DicomDestination(_Destination):
    """A PACS that takes objects by C-STORE."""

    kind: Literal["dicom"]
    host: str
    port: int = Field(ge=1, le=65535)
    called_ae: str = Field(min_length=1, max_length=16)
    calling_ae: str | None = Field(None, max_length=16)
    """Default: the AE title of this site."""
    objects: tuple[Literal["sr", "seg", "sc"], ...] = ("sr", "seg", "sc")
    tls: Tls | None = None


class StowDestination(_Destination):
    """A DICOMweb server: objects go to ``url`` + ``/studies`` by STOW-RS (PS3.18 section 10.5)."""

    kind: Literal["stow"]
    url: str = Field(pattern=r"^https?://")
    objects: tuple[Literal["sr", "seg", "sc"], ...] = ("sr", "seg", "sc")
    username: str | None = None
    password: Secret | None = None
    bearer: Secret | None = None
    ca_file: Path | None = None


class WebhookDestination(_Destination):
    """A URL that gets a signed JSON message."""

    kind: Literal["webhook"]
    url: str = Field(pattern=r"^https?://")
    secret: Secret
    patient_data: bool = False
    """Patient ID and accession number go along."""
    ca_file: Path | None = None


class EmailDestination(_Destination):
    """A mailbox."""

    kind: Literal["email"]
    host: str
    port: int = Field(587, ge=1, le=65535)
    sender: str
    to: tuple[str, ...] = Field(min_length=1)
    starttls: bool = True
    ca_file: Path | None = None
    username: str | None = None
    password: Secret | None = None
    patient_data: bool = False
    repeat: bool = False
    """A mail for each run; else one a study and pipeline."""


Destination = DicomDestination | StowDestination | WebhookDestination | EmailDestination


class Escalation(BaseModel):
    """Addresses for flags, one after the other until somebody acknowledges."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    destinations: tuple[str, ...] = Field(min_length=1)
    pipelines: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    ack_timeout_s: float = Field(600.0, gt=0)
    max_age_s: float = Field(86400.0, gt=0)
    """A flag older than this is not notified any more, so that switching a list on floods nobody."""


class DestinationsFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    destination: tuple[Annotated[Destination, Field(discriminator="kind")], ...] = ()
    escalation: tuple[Escalation, ...] = ()

    @model_validator(mode="after")
    def _names_agree(self) -> DestinationsFile:
        names = [d.name for d in self.destination]
        if len(set(names)) != len(names):
            raise ValueError("two destinations have one name")
        if len({e.name for e in self.escalation}) != len(self.escalation):
            raise ValueError("two escalations have one name")
        kinds = {d.name: d.kind for d in self.destination}
        seen: set[str] = set()
        for escalation in self.escalation:
            for name in escalation.destinations:
                if kinds.get(name) not in {"webhook", "email"}:
                    raise ValueError(f"escalation {escalation.name}: {name} is no webhook or e-mail destination")
            if seen & set(escalation.destinations):
                raise ValueError(f"escalation {escalation.name}: a destination belongs to one list only")
            seen |= set(escalation.destinations)
        return self

    @property
    def escalated(self) -> frozenset[str]:
        """Destinations that only an escalation list uses."""
        return frozenset(name for e in self.escalation for name in e.destinations)

    def named(self, name: str) -> Destination | None:
        """The destination of a name."""
        return next((d for d in self.destination if d.name == name), None)


_cache: dict[Path, tuple[tuple[int, int], DestinationsFile]] = {}
_lock = threading.Lock()


def file_path(settings: Settings) -> Path | None:
    """The site's file: the one set, else ``destinations.toml`` in the home where that exists."""
    if settings.destinations is not None:
        return settings.destinations
    path = settings.home / "destinations.toml"
    return path if path.is_file() else None


def read_file(settings: Settings) -> DestinationsFile:
    """The site's file of destinations; an empty one where none is set. Read again when it changes.

    Raises
    ------
    DestinationsError
        If it cannot be read, or says something that is not understood.
    """
    path = file_path(settings)
    if path is None:
        return DestinationsFile()
    try:
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        with _lock:
            known = _cache.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        read = DestinationsFile.model_validate(content)
    except OSError as error:
        raise DestinationsError(f"{path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DestinationsError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        raise DestinationsError(f"{path}: {_explain(error)}") from error
    with _lock:
        _cache[path] = (stamp, read)
    return read


def read_destinations(settings: Settings) -> list[Destination]:
    """The destinations of :func:`read_file`."""
    return list(read_file(settings).destination)


def _explain(error: ValidationError) -> str:
    items = error.errors(include_input=False, include_url=False)
    return "; ".join(f"{'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}" for item in items)
