"""What every test of results out needs: a certificate, and the secrets of the destinations."""

from __future__ import annotations

import pytest

from tests.builders.servers import Certificate, make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_SECRET", "a shared secret")
    monkeypatch.setenv("SMTP_PASSWORD", "secret")
