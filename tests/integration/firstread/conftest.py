"""Commands that cannot start, run in this process; servers that want TLS and a password."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

import pytest

from firstread.processes.spawning import settings_environ
from firstread.settings import Settings
from firstread_cli.main import main
from tests.builders.guarded_servers import PASSWORD, Guarded, guarded_postgres, guarded_redis
from tests.builders.servers import Certificate, make_certificate


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., list[str]]]:
    """Runs a command that cannot start, in this process; what it prints."""
    root, umask = logging.getLogger(), os.umask(0o022)
    os.umask(umask)
    handlers, level = list(root.handlers), root.level

    def call(verb: str, settings: Settings, *arguments: str, code: int = 1) -> list[str]:
        for name, value in settings_environ(settings).items():
            if name.startswith("FIRSTREAD_"):
                monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main([verb, *arguments])
        for name in [n for n in os.environ if n.startswith("FIRSTREAD_")]:
            monkeypatch.delenv(name)
        text = "".join(capfd.readouterr())
        assert ended.value.code == code, text
        assert not [word for word in ("Traceback", "geheim", PASSWORD, "images are taken") if word in text]
        return text.splitlines()

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    os.umask(umask)
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """What the guarded servers show; its own authority."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def postgres_with_tls(certificate: Certificate) -> Iterator[Guarded]:
    """A PostgreSQL with TLS and a password."""
    with guarded_postgres(certificate) as server:
        yield server


@pytest.fixture(scope="session")
def redis_with_tls(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A Redis with TLS and a password."""
    with guarded_redis(tmp_path_factory.mktemp("redis"), certificate) as server:
        yield server
