"""docker-compose.yml without an engine: its schema, and that everything it names is really there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from firstread.settings import ENV_PREFIX, Settings
from firstread_cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ["migrate", "listener", "deliver", "web", "worker", "worker-gpu", "worker-gpu-2"]
GRAFANA = ("/var/lib/grafana",)
GPU = "CUDA_VISIBLE_DEVICES"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def substituted(value: object, **given: str) -> str:
    """``value`` with Compose's ``${NAME:-default}`` filled in."""
    return VARIABLE.sub(lambda m: given.get(m[1], m[3] if m[2] == "-" else "secret"), str(value))


def test_the_file_follows_the_compose_schema() -> None:
    schema = json.loads((ROOT / "tests/data/compose_spec.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft201909Validator(schema)
    validator.validate(COMPOSE)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"services": {"a": {"image": "b", "helthcheck": {}}}})


def test_the_services_of_a_whole_system_are_there() -> None:
    assert set(SERVICES) == {"redis", "postgres", *OURS, "prometheus", "grafana"}
    assert "profiles" not in SERVICES["worker"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert SERVICES["worker-gpu-2"]["profiles"] == ["gpu2"]


def test_each_gpu_has_a_worker_of_its_own() -> None:
    seen = {name: substituted(SERVICES[name]["environment"][GPU]) for name in OURS if "gpu" in name}
    assert seen == {"worker-gpu": "0", "worker-gpu-2": "1"}


@pytest.mark.parametrize("name", [n for n in SERVICES if n != "migrate"])
def test_a_service_that_stays_has_a_health_check_and_comes_back(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", OURS)
def test_environment_is_made_of_settings(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIRSTREAD_CONFIG", "/dev/null")
    for key, value in SERVICES[name]["environment"].items():
        if key.endswith("_PASSWORD"):
            assert value == "", "passwords of others reach our containers by .env"
            continue
        if key == GPU:
            continue
        assert key.startswith(ENV_PREFIX)
        assert key.removeprefix(ENV_PREFIX).lower() in Settings.model_fields
        monkeypatch.setenv(key, substituted(value))
    others = {n for n in VARIABLE.findall((ROOT / "docker-compose.yml").read_text("utf-8")) if "PASSWORD" in n[0]}
    assert {n[0] for n in others} == {n for n in SERVICES[name]["environment"] if n.endswith("_PASSWORD")}
    settings = Settings()
    role = "firstread" if name == "migrate" else "firstread_service"
    assert settings.database_url == f"postgresql://{role}:secret@postgres:5432/firstread"
    assert settings.broker_url == "redis://redis:6379/0"
    assert {v for k, v in settings.sources().items() if k in {"home", "database_url", "broker_url"}} == {"environment"}


@pytest.mark.parametrize("name", OURS)
def test_the_command_is_one_of_ours(name: str) -> None:
    program, verb, *arguments = SERVICES[name]["command"]
    assert program == "firstread"
    assert verb in COMMANDS
    command = cli.get_command(cli.make_context("firstread", [verb, *arguments]), verb)
    assert command is not None
    command.make_context(verb, list(arguments))


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("listener", "listen"),
        ("deliver", "deliver"),
        ("worker", "work"),
        ("worker-gpu", "work"),
        ("worker-gpu-2", "work"),
    ],
)
def test_health_checks_and_prometheus_look_at_the_port_of_the_role(name: str, role: str, tmp_path: Path) -> None:
    port = str(Settings(home=tmp_path).port_of_metrics(role))
    assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "python", "/opt/firstread/healthcheck.py", port]
    assert str(SERVICES[name]["environment"]["FIRSTREAD_METRICS_PORT"]) == port
    scraped = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    names = [
        f"{dns}:{job['port']}"
        for config in scraped["scrape_configs"]
        for job in config.get("dns_sd_configs", [])
        for dns in job["names"]
    ]
    assert f"{name}:{port}" in names


def test_the_page_is_open_to_its_host_alone_and_looked_at() -> None:
    port = str(Settings.model_fields["web_port"].default)
    assert [substituted(published) for published in SERVICES["web"]["ports"]] == [f"127.0.0.1:{port}:{port}"]
    assert SERVICES["web"]["healthcheck"]["test"][-2:] == [port, "/healthz"]


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_the_env_file_reaches_our_services(name: str) -> None:
    assert SERVICES[name]["env_file"] == ".env"
    fixed = set(SERVICES[name]["environment"])
    assert {"FIRSTREAD_HOME", "FIRSTREAD_DATABASE_URL", "FIRSTREAD_BROKER_URL", "FIRSTREAD_METRICS_HOST"} <= fixed
    if name == "listener":
        assert {"FIRSTREAD_DICOM_HOST", "FIRSTREAD_DICOM_PORT", "FIRSTREAD_INBOX"} <= fixed


def test_other_services_get_no_settings_of_ours() -> None:
    for name in set(SERVICES) - set(OURS):
        assert "env_file" not in SERVICES[name]


def test_the_example_names_settings_and_a_place_for_the_files_of_the_site() -> None:
    text = (ROOT / "deploy/env.example").read_text(encoding="utf-8")
    example = dict(line.lstrip("#").split("=", 1) for line in text.splitlines() if re.match(r"#?[A-Z_]+=", line))
    for key in example:
        assert not key.startswith(ENV_PREFIX) or key.removeprefix(ENV_PREFIX).lower() in Settings.model_fields
    site = [m for m in SERVICES["deliver"]["volumes"] if m.endswith(":/etc/firstread:ro")]
    assert [substituted(mount).split(":")[0] for mount in site] == [example["SITE_DIR"]]
    assert example["FIRSTREAD_DESTINATIONS"].startswith("/etc/firstread/")


def test_redis_never_evicts_and_writes_down() -> None:
    words = SERVICES["redis"]["command"]
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
    assert words[words.index("--appendonly") + 1] == "yes"


def test_no_password_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for name, mark, _ in VARIABLE.findall(text):
        if "PASSWORD" in name:
            assert mark == "?", name
    example = dict(
        line.split("=", 1) for line in (ROOT / "deploy/env.example").read_text().splitlines() if re.match(r"\w+=", line)
    )
    assert {k: v for k, v in example.items() if "PASSWORD" in k} == {
        "POSTGRES_PASSWORD": "",
        "READER_PASSWORD": "",
        "SERVICE_PASSWORD": "",
        "GRAFANA_PASSWORD": "",
    }
    assert {name for name, _, _ in VARIABLE.findall(text)} - set(example) == {
        "INBOX_DIR",
        "SITE_DIR",
        "FIRSTREAD_LOG_LEVEL",
        "GPU_DEVICE",
        "GPU_DEVICE_2",
    }


@pytest.mark.parametrize("name", SERVICES)
def test_mounts_exist_and_volumes_are_declared(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = substituted(mount).split(":")[0]
        if source.startswith("./"):
            assert (ROOT / source).is_dir(), source
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize(
    ("name", "lock"),
    [
        ("migrate", "listener"),
        ("listener", "listener"),
        ("deliver", "listener"),
        ("web", "listener"),
        ("worker", "cpu"),
        ("worker-gpu", "gpu"),
        ("worker-gpu-2", "gpu"),
    ],
)
def test_an_image_is_built_from_its_lock_and_from_files_that_exist(name: str, lock: str) -> None:
    build = SERVICES[name]["build"]
    text = (ROOT / build["dockerfile"]).read_text(encoding="utf-8")
    assert f"--require-hashes -r requirements/{lock}.txt" in text
    by_argument = {"openvino"} if "ARG OPENVINO" in text else set()
    assert set(re.findall(r"requirements/(\w+)\.txt", text)) == {lock, *by_argument}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    for line in re.findall(r"^COPY (.+)$", text, flags=re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source in allowed or f"{Path(source).parent}/*{Path(source).suffix}" in allowed, source
    command = json.loads(re.findall(r"^CMD (.+)$", text, flags=re.MULTILINE)[0])
    assert command[0] == "firstread"
    assert command[1] in COMMANDS
    assert re.search(r"^USER firstread$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_write_its_volumes_and_gain_nothing(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and not service.get("cap_add") and not service.get("privileged")
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] not in {"", "0", "root"}
    writable = {substituted(mount).split(":")[1] for mount in service.get("volumes", []) if not mount.endswith(":ro")}
    assert writable <= {"/data", "/var/lib/postgresql/data", "/var/lib/firstread", "/inbox", "/prometheus", *GRAFANA}
    assert {place.split(":")[0] for place in service["tmpfs"]} <= {"/tmp", "/var/run/postgresql"}
    assert not {"network_mode", "pid", "ipc", "devices"} & set(service)


@pytest.mark.parametrize("name", OURS)
def test_the_user_of_an_image_is_that_of_its_container_and_owns_its_folders(name: str) -> None:
    text = (ROOT / SERVICES[name]["build"]["dockerfile"]).read_text(encoding="utf-8")
    (uid,) = re.findall(r"useradd --uid (\d+)", text)
    assert SERVICES[name]["user"] == f"{uid}:{uid}"
    folders = {
        substituted(mount).split(":")[1] for mount in SERVICES[name].get("volumes", []) if not mount.endswith(":ro")
    }
    (made,) = re.findall(r"install -d -o firstread -g firstread (.+)$", text, flags=re.MULTILINE)
    assert folders <= set(made.split())


def test_a_worker_may_finish_the_study_in_hand() -> None:
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) >= 60
