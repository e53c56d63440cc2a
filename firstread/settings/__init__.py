"""The one settings object: environment ``FIRSTREAD_*``, then a TOML file, then the defaults."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from firstread import pipelines
from firstread.clock import has_zones, is_zone
from firstread.cores import cores
from firstread.settings import checks
from firstread.settings.secrets import HIDDEN, URL_FIELDS, named_in, shown_url
from firstread.settings.sources import EnvironmentSource, FileSource, is_set, read_toml
from firstread.settings.unknown_names import Names, WrongSetting, sort_names
from firstread.tls.files import TlsFiles

ENV_PREFIX = "FIRSTREAD_"
OTHER_NAMES = ("CONFIG", "TEST_DATA")
"""What else is ours: the file of settings, and the real images that tests look at."""

AUTO_GRACE_S = 2.0
"""What ``auto`` means for a sender whose studies do not always come whole, or are not known."""


LISTENERS_LIMIT = 4
"""Most processes that serve associations where the setting does not say how many."""


def shipped_dir(name: str) -> Path:
    """A folder of data of this distribution: in a clone beside the packages, in a wheel among the package data."""
    here = Path(__file__).resolve().parents[1]
    packaged = here / "_data" / name
    return packaged if packaged.is_dir() else here.parent / name


def default_models_dir() -> Path:
    """Folder of the shipped model packages."""
    return shipped_dir("models")


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """The TOML file that is read: ``FIRSTREAD_CONFIG``, else ``firstread.toml`` in the home."""
    env = os.environ if environ is None else environ
    if env.get(ENV_PREFIX + "CONFIG"):
        return Path(env[ENV_PREFIX + "CONFIG"])
    home = env.get(ENV_PREFIX + "HOME") or str(Path("~/firstread").expanduser())
    return Path(home).expanduser() / "firstread.toml"


class Settings(BaseSettings):
    """Everything that a site can set. ``firstread doctor`` prints each with its source."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        extra="forbid",
        frozen=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    home: Path = Field(Path("~/firstread"), description="Folder of the database, spool, evidence and logs.")
    database_url: str = Field("", repr=False, description="SQLAlchemy URL; empty: SQLite in the home.")
    broker_url: str = Field(
        "", repr=False, description="Redis URL; empty: an embedded broker in the home, run by `firstread up`."
    )
    ae_title: str = Field("FIRSTREAD", description="Our AE title.", min_length=1, max_length=16)
    dicom_host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 lets modalities in.")
    dicom_port: int = Field(11112, ge=0, le=65535, description="Port of the DICOM listener; 0 takes a free one.")
    dicom_tls_host: str = Field(
        "", description="Address to listen on with TLS; empty: FIRSTREAD_DICOM_HOST, as without TLS."
    )
    dicom_tls_port: int = Field(
        2762,
        ge=0,
        le=65535,
        description="Port of the DICOM listener with TLS, beside the plain one, where FIRSTREAD_TLS_CERT names a "
        "certificate; 0 takes a free one.",
    )
    tls_cert: Path | None = Field(
        None,
        description="Certificate of the listener (PEM, with its chain behind it); read again when it changes. Empty: "
        "no TLS.",
    )
    tls_key: Path | None = Field(
        None, description="Private key of it (PEM, without a password); empty: it stands in the same file."
    )
    tls_client_ca: Path | None = Field(
        None,
        description="Authorities of client certificates (PEM): a sender with TLS must show one of theirs; empty: none "
        "is asked for.",
    )
    tls_client_names: tuple[str, ...] = Field(
        (),
        description="Names of which a client's certificate must have one (subject alternative or common name); "
        "empty: any.",
    )
    check_called_ae: bool = Field(False, description="Refuse associations that call another AE title than ours.")
    allowed_calling_ae: tuple[str, ...] = Field((), description="Calling AE titles that may send; empty: every one.")
    extra_transfer_syntaxes: tuple[str, ...] = Field((), description="Further transfer syntax UIDs to accept.")
    listener_processes: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Processes that serve associations on the one port; default: one a core, four at most.",
    )
    max_associations: int = Field(64, ge=1, description="Associations served at once, by all of them together.")
    network_timeout_s: float = Field(60.0, gt=0, description="An association without traffic ends after this.")
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="Addresses and networks of balancers before the listener: a PROXY header of theirs is believed, "
        "and no limit a host counts for them.",
    )
    stow_host: str = Field(
        "127.0.0.1",
        description="Address of the STOW-RS door; another than this machine's own needs FIRSTREAD_STOW_TOKEN, or "
        "client certificates (FIRSTREAD_TLS_CLIENT_CA).",
    )
    stow_port: int = Field(0, ge=0, le=65535, description="Port of the STOW-RS door; 0: off.")
    stow_token: SecretStr | None = Field(
        None,
        description="Token that each STOW-RS request must bear (`Authorization: Bearer TOKEN`), of 16 characters or "
        "more; empty: only this machine may send, or whoever has a client certificate.",
    )
    stow_tls: bool = Field(
        True,
        description="The STOW-RS door speaks TLS where FIRSTREAD_TLS_CERT names a certificate; false: plain HTTP, for "
        "a proxy before it.",
    )
    inbox: Path | None = Field(None, description="Folder to drop files into; default: inbox in the home.")
    inbox_keep_accepted: bool = Field(False, description="Keep a copy of accepted files in inbox/accepted.")
    inbox_rescan_s: float = Field(10.0, gt=0, description="Seconds between full looks at the inbox.")
    inbox_settle_s: float = Field(0.5, gt=0, description="Seconds between two looks that must agree before a claim.")
    inbox_grace_s: float = Field(3.0, ge=0, description="Seconds after the last inbox file of a study until it closes.")
    zip_max_mb: int = Field(4096, ge=1, description="Unpacked size at which a zip archive is refused.")
    zip_max_files: int = Field(20000, ge=1, description="Member count at which a zip archive is refused.")
    max_instance_mb: int = Field(2048, ge=1, description="Size at which a single object is refused.")
    metrics_host: str = Field("127.0.0.1", description="Address of the /metrics endpoint.")
    metrics_port: int | None = Field(
        None, description="Port of /metrics: 9108 for up and listen, 9109 for work, 9110 for deliver; 0: off."
    )
    web_host: str = Field("127.0.0.1", description="Address of the worklist page.")
    web_port: int = Field(8112, ge=0, le=65535, description="Port of the worklist page; 0: off.")
    web_url: str = Field(
        "",
        description="Address at which readers open the worklist page, https://worklist.hospital.example: mails and "
        "webhooks link to it, and it may be the Host of requests; empty: no links.",
    )
    web_idle_min: float = Field(
        60.0,
        gt=0,
        description="Minutes without a click after which a session of the worklist page ends; every session ends after "
        "12 hours.",
    )
    web_user_header: str = Field(
        "",
        description="Header in which a proxy before the worklist page names the user that it has let in; empty: none "
        "is believed.",
    )
    web_trusted_proxies: tuple[str, ...] = Field(
        (), description="Addresses and networks of proxies whose FIRSTREAD_WEB_USER_HEADER is believed."
    )
    grace_s: float | Literal["auto"] = Field(
        "auto",
        description="Seconds after the last release until a study closes; `auto`: 2, and next to none where the last "
        "20 studies of its calling AE and host each came whole in one association.",
    )
    quiet_s: float = Field(60.0, gt=0, description="Seconds without a new image until a study closes anyway.")
    max_wait_s: float = Field(1800.0, gt=0, description="Seconds after the first image at which a study closes anyway.")
    deliver_after_s: float = Field(
        0.0,
        ge=0,
        description="Seconds after the last image of a study for which results that do not flag are held back; "
        "flags go at once.",
    )
    silent: bool = Field(
        False,
        description="The first weeks of a site: everything is scored and stored, and no object, mail or message is "
        "sent, until `firstread golive --end`.",
    )
    min_free_mb: int = Field(1024, ge=0, description="Free disk space under which images are refused.")
    time_zone: str = Field(
        "",
        description="Where this site is, as an IANA name (Europe/Berlin): images without an offset from UTC are read "
        "in it, and result objects have its time; empty: not known.",
    )
    fresh_h: float = Field(
        24.0,
        ge=0,
        description="Hours after which a study counts as old: served after fresh ones of its priority, reported in "
        "summaries; 0: none is old.",
    )
    priority_by_calling_ae: dict[str, int] = Field(
        default_factory=dict, description="Calling AE title to priority; 0 is served first, 9 last."
    )
    force_pipelines: tuple[str, ...] = Field(
        (), description="Pipelines that score whatever can be scored, as for files in inbox/<pipeline>/."
    )
    force_pipelines_by_calling_ae: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Calling AE title to pipelines that score whatever can be scored of what it sends.",
    )
    next_steps: Path | None = Field(
        None, description="TOML file with the site's own sentence on the next step for each dermoscopy finding."
    )
    models_dir: Path = Field(default_factory=default_models_dir, description="Folder of the model packages.")
    model_keys: Path | None = Field(
        None,
        description="File of public keys (PEM): only packages that are signed by one of them are taken in and serve; "
        "empty: unsigned ones too.",
    )
    worker_threads: int = Field(3, ge=1, le=64, description="Studies read and prepared at once by a worker.")
    engine: Literal["tensorflow", "openvino"] = Field(
        "tensorflow",
        description="What runs the networks: tensorflow, the reference, or openvino, the converted files of packages "
        "(CPU, extra `openvino`); a package without a file that passes its tests is run by TensorFlow.",
    )
    engine_precisions: tuple[Literal["int8", "bf16", "fp16", "fp32"], ...] = Field(
        ("int8", "bf16", "fp16", "fp32"),
        min_length=1,
        description="Converted files that may serve: the first of these that a package has and that passes its tests "
        "on this machine.",
    )
    inference_threads: int = Field(0, ge=0, description="Threads of the inference engine; 0: one a core.")
    mixed_precision: bool = Field(
        False,
        description="Networks compute in float16 on a GPU, with weights in float32; without a GPU nothing changes. A "
        "package whose golden outputs differ by too much then does not serve.",
    )
    batch_wait_ms: int = Field(5, ge=0, description="Milliseconds that the engine waits to fill a batch.")
    lease_s: float = Field(60.0, gt=0, description="Seconds after which a silent worker loses its job.")
    max_attempts: int = Field(3, ge=1, description="Attempts at a job before it is FAILED.")
    stall_s: float = Field(300.0, gt=0, description="Seconds without progress in a job until the worker is restarted.")
    sweep_s: float = Field(2.0, gt=0, description="Seconds between the sweeper's looks.")
    republish_s: float = Field(60.0, gt=0, description="Seconds until an unanswered doorbell is rung again.")
    store_url: str = Field(
        "",
        repr=False,
        description="URL of a store for images and evidence, s3://bucket/prefix; empty: the home's folders.",
    )
    destinations: Path | None = Field(
        None, description="TOML file of destinations and escalations; default: destinations.toml in the home, if there."
    )
    retention_days: dict[str, int] = Field(
        default_factory=dict,
        description="Days to keep files by outcome (DONE, REJECTED, FAILED), of `evidence`, and of what was `refused` "
        "at a door; not named: for ever.",
    )
    retention_free_mb: int = Field(
        4096,
        ge=0,
        description="Free disk space under which images of finished studies go, the oldest first; at most half of the "
        "disk, and always more than FIRSTREAD_MIN_FREE_MB; 0: off.",
    )
    heartbeat_url: SecretStr | None = Field(
        None, description="URL that gets a POST while all is well: a dead-man's switch outside of this machine."
    )
    heartbeat_s: float = Field(60.0, gt=0, description="Seconds between these.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        name = value.strip()
        if name and not is_zone(name):
            if not has_zones():
                raise ValueError("this system has no time zone data: install the package tzdata")
            raise ValueError(f"{name!r} is no time zone; it takes an IANA name such as Europe/Berlin")
        return name

    @field_validator("retention_days")
    @classmethod
    def _known_outcomes(cls, value: dict[str, int]) -> dict[str, int]:
        unknown = set(value) - {"DONE", "REJECTED", "FAILED", "evidence", "refused"}
        if unknown or any(days < 0 for days in value.values()):
            raise ValueError("takes days of 0 or more for DONE, REJECTED, FAILED, evidence and refused")
        return value

    @field_validator("grace_s", mode="before")
    @classmethod
    def _grace(cls, value: Any) -> float | str:
        return checks.seconds_or_auto(value)

    @field_validator("ae_title")
    @classmethod
    def _ae_title(cls, value: str) -> str:
        return checks.ae_title(value)

    @field_validator("allowed_calling_ae")
    @classmethod
    def _ae_titles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(checks.ae_title(title) for title in value)

    @field_validator("extra_transfer_syntaxes")
    @classmethod
    def _uids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(checks.uid(text) for text in value)

    @field_validator("trusted_proxies", "web_trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(checks.network(text) for text in value)

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        return checks.database_url(value)

    @field_validator("broker_url")
    @classmethod
    def _broker(cls, value: str) -> str:
        return checks.broker_url(value)

    @field_validator("web_url")
    @classmethod
    def _page_url(cls, value: str) -> str:
        return checks.page_url(value)

    @field_validator("web_user_header")
    @classmethod
    def _header(cls, value: str) -> str:
        return checks.header_name(value)

    @field_validator("stow_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(checks.bearer_token(value.get_secret_value()))

    @field_validator("heartbeat_url")
    @classmethod
    def _heartbeat(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(checks.web_url(value.get_secret_value()))

    @field_validator("priority_by_calling_ae")
    @classmethod
    def _priority_range(cls, value: dict[str, int]) -> dict[str, int]:
        if any(not 0 <= p <= 9 for p in value.values()):
            raise ValueError("priorities lie between 0 (first) and 9 (last)")
        return value

    @field_validator("force_pipelines", "force_pipelines_by_calling_ae")
    @classmethod
    def _known_pipelines(cls, value: Any) -> Any:
        named = {name for names in value.values() for name in names} if isinstance(value, dict) else set(value)
        if named - set(pipelines.names()):
            raise ValueError(f"no such pipeline; there are {', '.join(pipelines.names())}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_paths(cls, values: dict[str, Any]) -> dict[str, Any]:
        home = values["home"] = checks.absolute(values.get("home") or "~/firstread")
        if not isinstance(home, Path):
            return values  # its field says so
        values["inbox"] = checks.absolute(values.get("inbox") or home / "inbox")
        values["database_url"] = values.get("database_url") or f"sqlite:///{home / 'firstread.sqlite'}"
        return values

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment with its secret files, then the TOML file."""
        asked_for = bool(os.environ.get(ENV_PREFIX + "CONFIG"))
        return (
            init_settings,
            EnvironmentSource(settings_cls, os.environ, ENV_PREFIX),
            FileSource(settings_cls, config_path(), asked_for=asked_for),
        )

    @model_validator(mode="after")
    def _token_for_strangers(self) -> Settings:
        lets_in_some = self.stow_token is not None or self.stow_asks_for_certificate
        if self.stow_port and not lets_in_some and not checks.is_local(self.stow_host):
            raise WrongSetting(
                f"FIRSTREAD_STOW_HOST {self.stow_host} lets other machines in: set FIRSTREAD_STOW_TOKEN (or "
                "FIRSTREAD_STOW_TOKEN_FILE), or FIRSTREAD_TLS_CLIENT_CA, which counts with FIRSTREAD_TLS_CERT and "
                "FIRSTREAD_STOW_TLS, or leave it at 127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _header_of_known_proxies(self) -> Settings:
        if bool(self.web_user_header) != bool(self.web_trusted_proxies):
            raise ValueError("FIRSTREAD_WEB_USER_HEADER and FIRSTREAD_WEB_TRUSTED_PROXIES go together or not at all")
        return self

    @model_validator(mode="after")
    def _tls_goes_together(self) -> Settings:
        if self.tls_cert is None and (self.tls_key or self.tls_client_ca or self.tls_client_names):
            raise ValueError("FIRSTREAD_TLS_CERT: the other settings of TLS need a certificate")
        if self.tls_client_names and self.tls_client_ca is None:
            raise ValueError(
                "FIRSTREAD_TLS_CLIENT_NAMES needs FIRSTREAD_TLS_CLIENT_CA: no certificate is asked for else"
            )
        return self

    @model_validator(mode="after")
    def _no_mistyped_names(self) -> Settings:
        mistyped = self.names().mistyped
        if mistyped:
            raise WrongSetting(
                "\n".join(f"{name} is no setting; did you mean {meant}?" for name, meant in mistyped.items())
            )
        return self

    def names(self) -> Names:
        """Names in the environment that are nearly settings', and those that nothing here knows."""
        known = [*(name.upper() for name in type(self).model_fields), *OTHER_NAMES]
        return sort_names(os.environ, ENV_PREFIX, known, named_in(self.destinations_file, "env"))

    @property
    def zone(self) -> ZoneInfo | None:
        """The site's time zone; None where it is not known."""
        return ZoneInfo(self.time_zone) if self.time_zone else None

    @property
    def learns_grace(self) -> bool:
        """Whether a study closes at once where its sender's came whole."""
        return self.grace_s == checks.LEARNED

    @property
    def release_grace_s(self) -> float:
        """Seconds after the last release until a study of a sender closes of which nothing is known."""
        return AUTO_GRACE_S if isinstance(self.grace_s, str) else self.grace_s

    @property
    def tls_files(self) -> TlsFiles | None:
        """Our side of TLS; None without a certificate."""
        if self.tls_cert is None:
            return None
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_client_ca, self.tls_client_names)

    @property
    def stow_speaks_tls(self) -> bool:
        """Whether the STOW-RS door is one of HTTPS."""
        return self.stow_tls and self.tls_cert is not None

    @property
    def stow_asks_for_certificate(self) -> bool:
        """Whether the STOW-RS door lets in those alone who show a certificate."""
        return self.stow_speaks_tls and self.tls_client_ca is not None

    @property
    def tls_host(self) -> str:
        """The address to listen on with TLS."""
        return self.dicom_tls_host or self.dicom_host

    @property
    def inbox_dir(self) -> Path:
        """The folder to drop files into."""
        assert self.inbox is not None
        return self.inbox

    @property
    def spool_dir(self) -> Path:
        """Folder of the received objects."""
        return self.home / "spool"

    @property
    def evidence_dir(self) -> Path:
        """Folder of heat maps, masks and pictures."""
        return self.home / "evidence"

    @property
    def objects_dir(self) -> Path:
        """Folder of the DICOM objects of results."""
        return self.home / "objects"

    @property
    def run_dir(self) -> Path:
        """Folder of sockets, locks and shared counters of running processes."""
        return self.home / "run"

    @property
    def log_dir(self) -> Path:
        """Folder of the logs."""
        return self.home / "log"

    @property
    def destinations_file(self) -> Path | None:
        """The file of destinations: the one set, else ``destinations.toml`` in the home where that exists."""
        if self.destinations is not None:
            return self.destinations
        path = self.home / "destinations.toml"
        return path if path.is_file() else None

    @property
    def embedded_broker(self) -> bool:
        """Whether the broker is our own, in the home."""
        return not self.broker_url

    def forced_for(self, calling_aes: Iterable[str]) -> frozenset[str]:
        """Pipelines that score whatever one of these senders sends."""
        known = self.force_pipelines_by_calling_ae
        return frozenset(name for ae in calling_aes for name in known.get(ae, ()))

    @property
    def listeners(self) -> int:
        """How many processes serve associations; elsewhere than on Linux one, since connections are not handed on."""
        if not sys.platform.startswith("linux"):
            return 1
        return self.listener_processes or min(LISTENERS_LIMIT, cores())

    def port_of_metrics(self, role: str) -> int:
        """Port of ``/metrics`` for ``up``, ``listen``, ``work`` or ``deliver``; 0 is off."""
        if self.metrics_port is not None:
            return self.metrics_port
        return {"work": 9109, "deliver": 9110}.get(role, 9108)

    def sources(self) -> dict[str, str]:
        """Where each setting came from: ``environment``, ``secret file``, ``file`` or ``default``."""
        in_file = read_toml(config_path())
        return {
            name: is_set(name, ENV_PREFIX) or ("file" if name in in_file else "default")
            for name in type(self).model_fields
        }

    def printable(self) -> dict[str, str]:
        """Values in force as text, with passwords in URLs replaced by ``***`` and secrets hidden."""
        values = {}
        ports = ", ".join(f"{self.port_of_metrics(role)} ({role})" for role in ("listen", "work", "deliver"))
        in_force = {
            "destinations": self.destinations_file,
            "metrics_port": ports if self.metrics_port is None else self.metrics_port,
            "listener_processes": self.listeners,
        }
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in URL_FIELDS:
                value = shown_url(value)
            value = in_force.get(name, value)
            values[name] = HIDDEN if isinstance(value, SecretStr) else "none" if value is None else str(value)
        return values
