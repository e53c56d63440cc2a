from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from firstread.settings import Settings
from firstread.settings.unknown_names import WrongSetting


def test_environment_wins_over_file_and_sources_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "site"
    home.mkdir()
    (home / "firstread.toml").write_text('ae_title = "FILEAE"\nquiet_s = 7.5\n')
    monkeypatch.setenv("FIRSTREAD_HOME", str(home))
    monkeypatch.setenv("FIRSTREAD_AE_TITLE", "ENVAE")
    settings = Settings()
    assert settings.ae_title == "ENVAE"
    assert settings.quiet_s == 7.5
    assert settings.inbox_dir == home / "inbox"
    assert settings.database_url == f"sqlite:///{home / 'firstread.sqlite'}"
    sources = settings.sources()
    assert (sources["ae_title"], sources["quiet_s"], sources["grace_s"]) == ("environment", "file", "default")


def test_lists_and_rules_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTREAD_ALLOWED_CALLING_AE", '["CT1", "CT2"]')
    monkeypatch.setenv("FIRSTREAD_PRIORITY_BY_CALLING_AE", '{"ER_CT": 0}')
    settings = Settings()
    assert settings.allowed_calling_ae == ("CT1", "CT2")
    assert settings.priority_by_calling_ae == {"ER_CT": 0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DICOM_PORT", "99999"),
        ("LOG_LEVEL", "LOUD"),
        ("PRIORITY_BY_CALLING_AE", '{"X": 12}'),
        ("AE_TITLE", "SEVENTEENLETTERS!"),
        ("GRACE_S", "-1"),
        ("GRACE_S", "inf"),
        ("GRACE_S", "soon"),
    ],
)
def test_wrong_values_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FIRSTREAD_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_a_door_for_others_wants_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTREAD_STOW_HOST", "0.0.0.0")
    Settings()  # it is off
    monkeypatch.setenv("FIRSTREAD_STOW_PORT", "8113")
    with pytest.raises(WrongSetting, match="FIRSTREAD_STOW_TOKEN"):
        Settings()
    for wrong in ("short", "a token with spaces in it", "nineteen-letters-ü"):
        monkeypatch.setenv("FIRSTREAD_STOW_TOKEN", wrong)
        with pytest.raises(ValidationError, match="16 characters"):
            Settings()
    monkeypatch.setenv("FIRSTREAD_STOW_TOKEN", "0123456789abcdef")
    assert "0123456789abcdef" not in str(Settings().printable())
    monkeypatch.delenv("FIRSTREAD_STOW_TOKEN")
    certificate: dict[str, Any] = {"tls_cert": "/cert.pem", "tls_client_ca": "/ca.pem"}
    assert Settings(**certificate).stow_asks_for_certificate
    with pytest.raises(WrongSetting, match="which counts with FIRSTREAD_TLS_CERT and FIRSTREAD_STOW_TLS"):
        Settings(**certificate, stow_tls=False)
    monkeypatch.setenv("FIRSTREAD_STOW_HOST", "::1")
    Settings()


def test_a_misspelt_name_in_the_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    config.write_text("quite_s = 3\n")
    monkeypatch.setenv("FIRSTREAD_CONFIG", str(config))
    with pytest.raises(ValidationError):
        Settings()


def test_passwords_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", "postgresql://reader:sesame@db/firstread")
    monkeypatch.setenv("FIRSTREAD_BROKER_URL", "redis://:sesame@broker:6379/0")
    assert "sesame" not in str(Settings().printable())


@pytest.mark.parametrize("name", ["Europe/Berlin", "UTC", " America/New_York ", ""])
def test_a_time_zone_is_an_iana_name(name: str) -> None:
    settings = Settings(time_zone=name)
    assert (settings.zone is None) == (name == "")


@pytest.mark.parametrize("name", ["Berlin", "CEST", "+01:00", "../../etc/passwd", "Europe"])
def test_another_time_zone_is_one_clear_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is no time zone; it takes an IANA name such as Europe/Berlin"):
        Settings(time_zone=name)
    monkeypatch.setattr("firstread.settings.has_zones", lambda: False)
    with pytest.raises(ValueError, match="install the package tzdata"):
        Settings(time_zone=name)


@pytest.mark.parametrize(
    ("value", "learns", "seconds"), [(None, True, 2.0), ("auto", True, 2.0), ("AUTO", True, 2.0), ("0.5", False, 0.5)]
)
def test_the_grace_is_a_number_or_learned(
    monkeypatch: pytest.MonkeyPatch, value: str | None, learns: bool, seconds: float
) -> None:
    if value is not None:
        monkeypatch.setenv("FIRSTREAD_GRACE_S", value)
    settings = Settings()
    assert (settings.learns_grace, settings.release_grace_s) == (learns, seconds)
    assert settings.printable()["grace_s"] == ("auto" if learns else "0.5")
