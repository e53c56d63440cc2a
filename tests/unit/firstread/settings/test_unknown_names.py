"""Settings that somebody mistyped, broke or pointed at nothing: one clear line each, and no start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from firstread.processes.spawning import settings_environ
from firstread.settings import Settings
from firstread.settings.unknown_names import WrongSetting, distance, sort_names
from firstread_cli.doctor.command import check_names
from firstread_cli.main import main

PROCESSES = ("up", "listen", "work", "deliver", "migrate")


def lines_of(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 2) -> list[str]:
    """What a command prints where it does not start."""
    with pytest.raises(SystemExit) as stopped:
        main(list(argv))
    assert stopped.value.code == code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return (out + err).splitlines()


@pytest.mark.parametrize("verb", [*PROCESSES, "results", "doctor"])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ALLOWED_CALLING_AES", '["CT1"]', "did you mean FIRSTREAD_ALLOWED_CALLING_AE?"),
        ("CONFIG", "/nope.toml", "FIRSTREAD_CONFIG: /nope.toml is not there"),
        ("DICOM_PROT", "104", "did you mean FIRSTREAD_DICOM_PORT?"),
        ("QUIET", "5", "did you mean FIRSTREAD_QUIET_S?"),
        ("DICOM_PORT", "tcp://10.0.0.1:11112", "enableServiceLinks: false"),
        ("METRICS_PORT", "TCP://10.0.0.1:9108", "enableServiceLinks: false"),
        ("ALLOWED_CALLING_AE", "CT1", '["CT1", "CT2"]'),
        ("RETENTION_DAYS", "30", "FIRSTREAD_RETENTION_DAYS: Input should be a valid dictionary"),
        ("DATABASE_URL", "postgres//user:geheim@db/x", "FIRSTREAD_DATABASE_URL: not the URL of a database"),
        ("BROKER_URL", "http://:geheim@redis", "FIRSTREAD_BROKER_URL: not the URL of a Redis server"),
        ("HEARTBEAT_URL", "geheim", "FIRSTREAD_HEARTBEAT_URL: not the URL of a web server"),
        ("AE_TITLE", "A\\B", "FIRSTREAD_AE_TITLE: "),
        ("GRACE_S", "nan", "FIRSTREAD_GRACE_S: takes seconds of 0 or more, or auto"),
        ("DATABASE_URL_FILE", "/nope/secret", "FIRSTREAD_DATABASE_URL_FILE: /nope/secret cannot be read"),
    ],
)
def test_a_wrong_setting_is_one_line_and_no_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"FIRSTREAD_{name}", value)
    (line,) = lines_of(capsys, verb)
    assert line.startswith("firstread: ") and words in line
    assert "geheim" not in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ae_title = \n", "is no TOML: "),
        ("quite_s = 3\n", "quite_s in {}: no such setting; did you mean quiet_s?"),
        ('dicom_port = "abc"\n', "dicom_port in {}: "),
        ("\xff", "is no TOML: "),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "home" / "firstread.toml"
    file.parent.mkdir()
    file.write_bytes(content.encode("latin-1"))
    (line,) = lines_of(capsys, "up")
    assert words.format(file) in line and str(file) in line
    file.unlink()
    file.mkdir()
    assert lines_of(capsys, "up") == [f"firstread: {file} is a folder; the file of settings belongs there"]


def test_each_fault_has_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FIRSTREAD_DICOM_PORT", "99999")
    monkeypatch.setenv("FIRSTREAD_LOG_LEVEL", "LOUD")
    lines = lines_of(capsys, "listen")
    assert [line.split(":")[1].strip() for line in lines] == ["FIRSTREAD_DICOM_PORT", "FIRSTREAD_LOG_LEVEL"]
    monkeypatch.delenv("FIRSTREAD_DICOM_PORT")
    monkeypatch.delenv("FIRSTREAD_LOG_LEVEL")
    monkeypatch.setenv("FIRSTREAD_INBOXX", "1")
    monkeypatch.setenv("FIRSTREAD_HOMES", "1")
    assert len(lines_of(capsys, "listen")) == 2


def test_what_orchestrators_and_destinations_put_there_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "DICOM_SERVICE_HOST": "10.0.0.1",
        "DICOM_SERVICE_PORT": "11112",
        "DICOM_SERVICE_PORT_METRICS": "9108",
        "DICOM_PORT_11112_TCP": "tcp://10.0.0.1:11112",
        "DICOM_PORT_11112_TCP_ADDR": "10.0.0.1",
        "METRICS_PORT_9108_TCP_PROTO": "tcp",
        "DICOMS_PORT": "tcp://10.0.0.1:11112",
        "PORT": "tcp://10.0.0.1:11112",
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "11112",
        "SERVICE_PORT_DICOM": "11112",
        "PORT_11112_TCP": "tcp://10.0.0.1:11112",
        "PORT_11112_TCP_ADDR": "10.0.0.1",
        "TEST_DATA": "/data",
        "DESTINATIONS_PASSWORD": "sesame",
    }.items():
        monkeypatch.setenv(f"FIRSTREAD_{name}", value)
    with pytest.raises(WrongSetting, match="FIRSTREAD_DESTINATIONS_PASSWORD is no setting"):
        Settings()
    home = tmp_path / "home"
    home.mkdir()
    (home / "destinations.toml").write_text('[[destination]]\npassword = { env = "FIRSTREAD_DESTINATIONS_PASSWORD" }\n')
    assert Settings().names().unknown == []
    assert settings_environ(Settings())["FIRSTREAD_DESTINATIONS_PASSWORD"] == "sesame", "the sending child needs it"


def test_other_names_are_a_warning_and_a_line_of_the_doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTREAD_COFFEE", "strong")
    (check,) = check_names(Settings())
    assert (check.status, "FIRSTREAD_COFFEE" in check.detail, "strong" in check.detail) == ("warn", True, False)
    main_result: Callable[[list[str]], object] = main
    with pytest.raises(SystemExit) as done:
        main_result(["migrate"])
    assert done.value.code == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "COFFEE" in line] == [
        "firstread: FIRSTREAD_COFFEE is no setting of this version and is ignored"
    ]
    monkeypatch.delenv("FIRSTREAD_COFFEE")
    assert list(check_names(Settings())) == []


def test_secrets_come_from_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("postgresql://firstread:sesame@db/firstread\n")
    titles = tmp_path / "titles"
    titles.write_text('["CT1"]\n')
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL_FILE", str(secret))
    monkeypatch.setenv("FIRSTREAD_ALLOWED_CALLING_AE_FILE", str(titles))
    settings = Settings()
    assert settings.database_url == "postgresql://firstread:sesame@db/firstread"
    assert settings.allowed_calling_ae == ("CT1",)
    assert settings.sources()["database_url"] == "secret file"
    child = settings_environ(settings)
    assert "FIRSTREAD_DATABASE_URL_FILE" not in child
    assert json.loads(child["FIRSTREAD_ALLOWED_CALLING_AE"]) == ["CT1"]
    monkeypatch.setenv("FIRSTREAD_DATABASE_URL", "sqlite:////x")
    with pytest.raises(WrongSetting, match="both set"):
        Settings()
    monkeypatch.delenv("FIRSTREAD_DATABASE_URL")
    secret.write_text("\n")
    with pytest.raises(WrongSetting, match="is empty"):
        Settings()


def test_a_child_starts_without_the_file_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("quiet_s = 7\n")
    monkeypatch.setenv("FIRSTREAD_CONFIG", str(file))
    environ = settings_environ(Settings())
    file.write_text("quiet_s = \n")
    for name, value in environ.items():
        if name.startswith("FIRSTREAD_"):
            monkeypatch.setenv(name, value)
    assert Settings().quiet_s == 7


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [
        ("HOME", "HOME", 0),
        ("HMOE", "HOME", 1),
        ("INBX", "INBOX", 1),
        ("NAME", "HOME", 2),
        ("", "A", 1),
        ("ABC", "X", 3),
    ],
)
def test_distance(a: str, b: str, edits: int) -> None:
    assert distance(a, b) == distance(b, a) == edits


def test_names_of_settings_never_accuse_each_other() -> None:
    known = [name.upper() for name in Settings.model_fields]
    environ = {f"FIRSTREAD_{name}{end}": "x" for name in known for end in ("", "_FILE")}
    sorted_names = sort_names(environ, "FIRSTREAD_", known)
    assert not sorted_names.mistyped and not sorted_names.unknown
