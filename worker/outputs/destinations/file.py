"""Who gets results: a TOML file of destinations, rules and escalation lists."""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from firstread.errors import FirstreadError
from firstread.settings import Settings


class DestinationsError(FirstreadError):
    """The file of destinations cannot be used; the text says where."""

    exit_code = 2


class NotDelivered(Exception):
    """The destination did not take a message at this attempt; the text says why, without patient data."""


class Refused(NotDelivered):
    """The destination will never take this message: it is not sent again by itself."""


class DeliveryRule(BaseModel):
    """Which results a destination gets. Everything named must hold; what is left out does not restrict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipelines: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    """At least one of these is positive: flagged, or at its threshold. One without a threshold is not."""
    flagged: bool = False
    """Only results that raise or confirm a flag."""
    states: tuple[Literal["DONE", "REJECTED", "FAILED"], ...] = ("DONE",)


class FlagRule(DeliveryRule):
    """Results that raise or confirm a flag, unless ``flagged = false`` asks for the others too."""

    flagged: bool = True
    states: tuple[Literal["DONE"], ...] = ("DONE",)


class _Destination(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    when: DeliveryRule = DeliveryRule()
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
            secret = os.environ.get(self.env, "")
        else:
            assert self.file is not None
            try:
                secret = self.file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise DestinationsError(f"the secret file {self.file} cannot be read ({error.strerror})") from error
        if not secret:
            raise DestinationsError(f"the secret in {self.env or self.file} is empty")
        return SecretStr(secret)


Namespace = Annotated[str, Field(max_length=20, pattern=r"^[ -~]*$")]
"""A name that both sides have agreed upon (IS of HL7 v2.5.1, 20 characters)."""


class Tls(BaseModel):
    """TLS of a DICOM association (PS3.15 annex B) or of MLLP. The peer's certificate is always checked."""

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


class Hl7Destination(_Destination):
    """A RIS or an integration engine that takes ORU^R01 messages (HL7 v2.5.1) over MLLP."""

    kind: Literal["hl7"]
    host: str
    port: int = Field(ge=1, le=65535)
    when: FlagRule = FlagRule()
    tls: Tls | None = None
    sending_application: Namespace = "FIRSTREAD"
    sending_facility: Namespace = ""
    receiving_application: Namespace = ""
    receiving_facility: Namespace = ""
    assigning_authority: Namespace = ""
    """Whose Patient IDs are, where the images name no issuer."""
    patient_class: Literal["", "E", "I", "O", "P", "R", "B", "C", "N", "U"] = ""
    """PV1-2 (table 0004); without one no PV1 is sent."""
    processing_id: Literal["P", "T", "D"] = "P"
    """MSH-11: production, training or debugging."""
    acknowledgement: Literal["original", "enhanced"] = "original"
    """What MSH-15 and MSH-16 ask for; either kind of answer is understood."""
    character_set: Literal["UNICODE UTF-8", "8859/1"] = "UNICODE UTF-8"
    codes: Path | None = None
    """TOML file of codes for findings and procedures; without one, ours."""


class FhirDestination(_Destination):
    """A FHIR R4 server: a DiagnosticReport with its Observations, as a transaction, goes to ``url``."""

    kind: Literal["fhir"]
    url: str = Field(pattern=r"^https?://")
    when: FlagRule = FlagRule()
    username: str | None = None
    password: Secret | None = None
    bearer: Secret | None = None
    ca_file: Path | None = None
    patient_system: str = Field("", pattern=r"^([a-z][a-z0-9+.-]*:[!-~]+)?$")
    """URI of the namespace of Patient IDs."""
    accession_system: str = Field("", pattern=r"^([a-z][a-z0-9+.-]*:[!-~]+)?$")
    codes: Path | None = None


STORED_WARNINGS = frozenset({0xB000, 0xB006, 0xB007})
"""Coercion, elements discarded, data set does not match the class: stored all the same (PS3.4 annex B.2.3)."""

IDENTIFIED_KINDS = ("dicom", "stow", "hl7", "fhir")
"""Kinds of destinations that get what carries the patient's name: DICOM objects, and messages to a RIS."""

Destination = (
    DicomDestination | StowDestination | WebhookDestination | EmailDestination | Hl7Destination | FhirDestination
)


class Escalation(BaseModel):
    """Addresses for flags, one after the other until somebody acknowledges."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    destinations: tuple[str, ...] = Field(min_length=1)
    pipelines: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    ack_timeout_s: float = Field(600.0, gt=0)
    max_age_s: float = Field(86400.0, gt=0)
    """A flag older than this is not notified any more, so that a new list does not send many messages at once."""


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


def read_file(settings: Settings) -> DestinationsFile:
    """The site's file of destinations as it is on disk; an empty one where none is set.

    What is sent goes by :class:`worker.outputs.destinations.watch.DestinationsWatch`, which keeps the last good one.

    Raises
    ------
    DestinationsError
        If it cannot be read, or is not what it should be.
    """
    path = settings.destinations_file
    return DestinationsFile() if path is None else parse(path)


def parse(path: Path) -> DestinationsFile:
    """A file of destinations. Raises :class:`DestinationsError`."""
    content: dict[str, Any] = {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return DestinationsFile.model_validate(content)
    except OSError as error:
        raise DestinationsError(f"{path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DestinationsError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        raise DestinationsError(f"{path}: {_explain(error, content)}") from error


def complaint_at_start(settings: Settings) -> str:
    """What is wrong with the site's file, where the last good one can stand in for it; empty where nothing is wrong.

    Raises
    ------
    DestinationsError
        If the file is wrong and there is no last good one.
    """
    try:
        read_file(settings)
    except DestinationsError as error:
        path = settings.destinations_file
        if path is None or not _is_good(kept_path(settings, path)):
            raise
        return f"{error}; the last good file stays in force"
    return ""


def kept_path(settings: Settings, path: Path) -> Path:
    """Where the last good content of a file of destinations is kept for the next start."""
    digest = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12]
    return settings.run_dir / f"destinations-{digest}.toml"


def _is_good(path: Path) -> bool:
    try:
        parse(path)
    except DestinationsError:
        return False
    return True


def read_destinations(settings: Settings) -> list[Destination]:
    """The destinations of :func:`read_file`."""
    return list(read_file(settings).destination)


def _explain(error: ValidationError, content: dict[str, Any]) -> str:
    """Each fault with the name of its destination or escalation list."""
    items = error.errors(include_input=False, include_url=False)
    return "; ".join(f"{_place(item['loc'], content)}: {item['msg'].removeprefix('Value error, ')}" for item in items)


def _place(loc: tuple[int | str, ...], content: dict[str, Any]) -> str:
    """``destination "pacs", port`` for ``("destination", 1, "dicom", "port")``."""
    table, *rest = loc or ("file",)
    if table not in {"destination", "escalation"} or not rest or not isinstance(rest[0], int):
        return ".".join(str(part) for part in loc) or "file"
    rows = content.get(str(table))
    row = rows[rest[0]] if isinstance(rows, list) and rest[0] < len(rows) else None
    named = isinstance(row, dict) and isinstance(row.get("name"), str)
    name = f'{table} "{row["name"][:64]}"' if named and row is not None else f"{table} number {rest[0] + 1}"
    kind = row.get("kind") if isinstance(row, dict) else None
    parts = rest[2:] if len(rest) > 1 and rest[1] == kind else rest[1:]
    return ", ".join([name, ".".join(str(part) for part in parts)]) if parts else name
