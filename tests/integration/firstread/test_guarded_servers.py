"""PostgreSQL and Redis with TLS and a password, by the URLs that docs/operations.md shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis
from pydantic import ValidationError
from sqlalchemy import text

from firstread.queue import QUEUE, broker_url, depth, make_app, redis_client
from firstread.settings import Settings
from firstread_cli.doctor.command import check_broker, check_database
from tests.builders.guarded_servers import PASSWORD, Guarded
from tests.builders.listening import QUICK, all_closed, listening, send, small_files
from tests.builders.servers import make_certificate
from tests.builders.timing import free_port, until

ROOT = Path(__file__).resolve().parents[3]
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
Run = Callable[..., list[str]]

KOMBU_CONNECTS = """
import sys
from firstread.queue import make_app
from firstread.settings import Settings
try:
    with make_app(Settings(broker_url=sys.argv[1])).connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
        connection.default_channel.client.ping()
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def shown(scheme: str, server: Guarded, *, host: str = "localhost", password: str = PASSWORD, ca: object = None) -> str:
    """The URL of the document, for a server of these tests."""
    (url,) = re.findall(rf"^({scheme}://\S+)$", OPERATIONS, flags=re.MULTILINE)
    url = re.sub(r"@[\w.]+:\d+/", f"@{host}:{server.port}/", url).replace("PASSWORD", password)
    return url.replace("/etc/firstread/ca.pem", str(ca or server.ca_file)).replace("/firstread?", "/postgres?")


def test_a_study_comes_in_by_tls_to_both(
    postgres_with_tls: Guarded, redis_with_tls: Guarded, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(
        database_url=shown("postgresql", postgres_with_tls), broker_url=shown("rediss", redis_with_tls), **QUICK
    )
    with listening(settings) as service:
        assert all(outcome.ok for outcome in send(service, *small_files(tmp_path / "ct")))
        all_closed(service.db)
        with service.db.read() as session:
            assert session.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar_one(), (
                "the connection is encrypted"
            )
        client = redis_client(settings)
        until(lambda: depth(client) == 1, what="the doorbell on the broker")
        assert {c.status for check in (check_database, check_broker) for c in check(settings)} <= {"ok", "warn"}
        with make_app(settings).connection_for_read() as connection:
            body = connection.SimpleQueue(QUEUE).get(timeout=10).payload
        assert isinstance(body[1]["revision_id"], int)
        client.flushall()
        client.close()


def test_neither_server_takes_a_plain_connection(postgres_with_tls: Guarded, redis_with_tls: Guarded) -> None:
    """Else the tests of this module show nothing."""
    url = f"postgresql://firstread:{PASSWORD}@127.0.0.1:{postgres_with_tls.port}/postgres?sslmode=disable"
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(url)
    with pytest.raises(redis.ConnectionError):
        redis_client(Settings(broker_url=f"redis://:{PASSWORD}@127.0.0.1:{redis_with_tls.port}/0")).ping()


@pytest.mark.parametrize("verb", ["migrate", "work"])
def test_a_wrong_authority_name_or_password_of_the_database_is_one_line(
    run: Run, make_settings: Callable[..., Settings], postgres_with_tls: Guarded, tmp_path: Path, verb: str
) -> None:
    other = make_certificate(tmp_path / "other").cert_file
    by_name = shown("postgresql", postgres_with_tls)
    for url, words in {
        shown("postgresql", postgres_with_tls, ca=other): "certificate verify failed",
        shown("postgresql", postgres_with_tls, ca=tmp_path / "none.pem"): "none.pem",
        shown("postgresql", postgres_with_tls, password="geheim-falsch"): "password authentication failed for user",
        by_name.replace("@localhost:", "@127.0.0.2:"): "127.0.0.2",
        by_name.replace("verify-full", "disable"): "no encryption",
    }.items():
        (line,) = run(verb, make_settings(database_url=url, dicom_port=free_port()))
        assert line.startswith("firstread: the database ") and words in line and "FIRSTREAD_DATABASE_URL" in line


def test_a_wrong_authority_name_or_password_of_the_broker_is_one_line(
    run: Run, make_settings: Callable[..., Settings], redis_with_tls: Guarded, tmp_path: Path
) -> None:
    other = make_certificate(tmp_path / "other").cert_file
    url = shown("rediss", redis_with_tls)
    for wrong, words in {
        shown("rediss", redis_with_tls, ca=other): "its certificate is not trusted",
        url.partition("?")[0]: "its certificate is not trusted",
        shown("rediss", redis_with_tls, ca=tmp_path / "none.pem"): "No such file or directory",
        shown("rediss", redis_with_tls, password="geheim-falsch"): "does not take the password",
        url.partition("?")[0].replace("rediss://", "redis://"): "does not answer",
    }.items():
        settings = make_settings(broker_url=wrong, dicom_port=free_port())
        (line,) = run("work", settings)
        assert line.startswith("firstread: the broker at redis") and words in line
        assert "FIRSTREAD_BROKER_URL" in line
        (check,) = check_broker(settings)
        assert check.status == "fail" and words in check.detail and PASSWORD not in check.detail


def test_what_publishes_and_consumes_checks_the_certificate_too(redis_with_tls: Guarded, tmp_path: Path) -> None:
    """Kombu by itself takes any certificate. In a process of its own, since it keeps connections by host and port."""
    other = make_certificate(tmp_path / "other").cert_file
    right = shown("rediss", redis_with_tls)
    for url, fault in {
        right: "",
        shown("rediss", redis_with_tls, ca=other): "CERTIFICATE_VERIFY_FAILED",
        right.partition("?")[0]: "CERTIFICATE_VERIFY_FAILED",
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", KOMBU_CONNECTS, url], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode == 0) == (fault == "") and fault in done.stderr


def test_a_site_may_say_how_certificates_are_checked() -> None:
    assert broker_url(Settings(broker_url="rediss://h:1/0")) == "rediss://h:1/0?ssl_cert_reqs=required"
    assert broker_url(Settings(broker_url="rediss://h:1/0?ssl_cert_reqs=none")) == "rediss://h:1/0?ssl_cert_reqs=none"
    assert broker_url(Settings(broker_url="redis://h:1/0")) == "redis://h:1/0"
    for url, words in {
        "redis://h:1/0?ssl_ca_certs=/a.pem": "TLS is rediss",
        "rediss://h:1/0?password=geheim": "stand before the host",
    }.items():
        with pytest.raises(ValidationError, match=words) as error:
            Settings(broker_url=url)
        assert "geheim" not in str(error.value)
