"""Redis and PostgreSQL as a hospital runs them: with TLS and a password, and no other way in; on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.builders.programs import missing, need
from tests.builders.servers import Certificate
from tests.builders.timing import free_port, until

PASSWORD = "geheim-8f3a"


@dataclass(frozen=True)
class Guarded:
    """A running server, and the certificate that it shows."""

    port: int
    ca_file: Path


@contextlib.contextmanager
def guarded_redis(folder: Path, tls: Certificate) -> Iterator[Guarded]:
    """A Redis that listens with TLS alone and wants :data:`PASSWORD`."""
    program = need("redis-server", "redis-server")
    port = free_port()
    options = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "tls-cert-file": str(tls.cert_file),
        "tls-key-file": str(tls.key_file),
        "tls-ca-cert-file": str(tls.cert_file),
        "tls-auth-clients": "no",
        "requirepass": PASSWORD,
        "save": "",
        "dir": str(folder),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    process = subprocess.Popen([program, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert any(b"Ready to accept" in line for line in process.stdout), "Redis does not start"
        yield Guarded(port, tls.cert_file)
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


def distribution_postgres() -> tuple[Path, dict[str, Any]]:
    """Folder of the programs of a distribution's PostgreSQL, and whom they run as, for :mod:`subprocess`.

    They do not run as root; where the tests do, they run as the user ``postgres``.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = found[-1] if found else Path(shutil.which("initdb") or missing("initdb", "postgresql"))
    return initdb.parent, {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}


@contextlib.contextmanager
def guarded_postgres(tls: Certificate) -> Iterator[Guarded]:
    """A PostgreSQL that lets in TLS alone (``hostssl``), role ``firstread`` with :data:`PASSWORD`.

    The server of a distribution, since the one of the other tests was built without TLS.
    """
    programs, owner = distribution_postgres()
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        files = {"server.pem": tls.cert_file.read_bytes(), "server.key": tls.key_file.read_bytes()}
        for file, content in (files | {"password": PASSWORD.encode()}).items():
            (folder / file).write_bytes(content)
            (folder / file).chmod(0o600)
        if owner:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "postgres", "postgres")
        data = folder / "data"
        rules = ["-U", "firstread", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-N"]
        subprocess.run(
            [programs / "initdb", "-D", data, *rules],
            check=True,
            capture_output=True,
            timeout=100,
            cwd=folder,
            **owner,
        )
        (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n", encoding="ascii")
        options = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "ssl": "on",
            "ssl_cert_file": str(folder / "server.pem"),
            "ssl_key_file": str(folder / "server.key"),
            "fsync": "off",
        }
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        log = folder / "log"
        with log.open("wb") as output:
            command = [str(programs / "postgres"), "-D", str(data), *words]
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, **owner)
        try:
            until(lambda: "ready to accept" in log.read_text() or process.poll() is not None, 60, log.read_text)
            assert process.poll() is None, log.read_text()
            yield Guarded(port, tls.cert_file)
        finally:
            process.terminate()
            process.wait(timeout=30)
