"""Where settings come from: the environment, secret files that it names, and a TOML file; each error in one line."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource

from firstread.settings.unknown_names import FILE_SUFFIX, WrongSetting, is_service_url

EXAMPLES = {"allowed_calling_ae": '["CT1", "CT2"]', "retention_days": '{"DONE": 30}'}


class EnvironmentSource(EnvSettingsSource):
    """``FIRSTREAD_*``, and the content of the files that ``FIRSTREAD_*_FILE`` names (as Docker's secrets do)."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str], prefix: str) -> None:
        super().__init__(settings_cls)
        self._prefix = prefix
        values = {name.lower(): value for name, value in environ.items() if value}
        self.env_vars = {**values, **_secret_files(settings_cls, values, prefix)}

    def prepare_field_value(
        self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool
    ) -> Any:  # numpydoc ignore=RT01
        """The value of one field, with a fault in words of our own."""
        name = self._prefix + field_name.upper()
        if isinstance(value, str) and field_name.endswith("_port") and is_service_url(value):
            raise WrongSetting(
                f"{name} is a service link of an orchestrator, not a port: set enableServiceLinks: false in the pod's "
                "spec, or give the service another name"
            )
        try:
            return super().prepare_field_value(field_name, field, value, value_is_complex)
        except ValueError as error:
            raise WrongSetting(f"{name} is no JSON; it looks like {_example(field_name, field)}") from error


def _example(field_name: str, field: FieldInfo) -> str:
    if field_name in EXAMPLES:
        return EXAMPLES[field_name]
    return '{"NAME": 1}' if "dict" in str(field.annotation) else '["ONE", "TWO"]'


def _secret_files(settings_cls: type[BaseSettings], environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    secrets = {}
    for field_name in settings_cls.model_fields:
        name = f"{prefix}{field_name.upper()}"
        path = environ.get(f"{name}{FILE_SUFFIX}".lower())
        if not path:
            continue
        if name.lower() in environ:
            raise WrongSetting(f"{name} and {name}{FILE_SUFFIX} are both set; one of them will do")
        try:
            content = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
            raise WrongSetting(f"{name}{FILE_SUFFIX}: {path} cannot be read ({why})") from error
        if not content:
            raise WrongSetting(f"{name}{FILE_SUFFIX}: {path} is empty")
        secrets[name.lower()] = content
    return secrets


class FileSource(InitSettingsSource):
    """The TOML file of settings."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path, *, asked_for: bool) -> None:
        super().__init__(settings_cls, read_toml(path, asked_for=asked_for))


def read_toml(path: Path, *, asked_for: bool = False) -> dict[str, Any]:
    """Content of the file of settings; nothing where there is none.

    Raises
    ------
    WrongSetting
        If it cannot be read, is no TOML, or is not there though somebody ``asked_for`` it.
    """
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise WrongSetting(f"{path} is a folder; the file of settings belongs there")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not asked_for:
            return {}
        raise WrongSetting(f"FIRSTREAD_CONFIG: {path} is not there") from error
    except NotADirectoryError as error:
        if not asked_for:
            return {}  # the home is a file, which whoever makes the home says
        raise WrongSetting(f"FIRSTREAD_CONFIG: {path} is not there") from error
    except OSError as error:
        raise WrongSetting(f"{path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongSetting(f"{path} is no TOML: {error}") from error


def is_set(field_name: str, prefix: str, environ: Mapping[str, str] | None = None) -> str | None:
    """``environment`` or ``secret file`` where the environment sets a field; else None."""
    env = {name.upper(): value for name, value in (os.environ if environ is None else environ).items()}
    name = prefix + field_name.upper()
    if env.get(name):
        return "environment"
    return "secret file" if env.get(name + FILE_SUFFIX) else None
