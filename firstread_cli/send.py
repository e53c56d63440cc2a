"""``firstread send``: our own sender, for tests of a site and for files that other senders cannot send."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from firstread.settings import Settings
from firstread.tls.client import ClientTls, speaks_tls
from firstread_cli.tables import echo, print_json

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True, path_type=Path))
@click.option("--host", help="Default: this site's listener.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: this site's listener.")
@click.option("--called", help="Called AE title; default: this site's.")
@click.option("--calling", default="FIRSTREADSND", show_default=True, help="Calling AE title.")
@click.option("--associations", type=click.IntRange(1, 32), default=1, show_default=True, help="Associations at once.")
@click.option("--tls", is_flag=True, help="With TLS; default port: FIRSTREAD_DICOM_TLS_PORT.")
@click.option("--ca", type=FILE, metavar="FILE", help="Authority of the peer's certificate; default: the system's.")
@click.option("--cert", type=FILE, metavar="FILE", help="Our certificate (PEM), where the peer wants one.")
@click.option("--key", type=FILE, metavar="FILE", help="Its key; default: in the same file.")
@click.option("--tls-name", metavar="NAME", help="Name in the peer's certificate, where it is not the host.")
@click.option("--json", "as_json", is_flag=True, help="JSON, a row a file.")
def send(
    paths: tuple[Path, ...],
    host: str | None,
    port: int | None,
    called: str | None,
    calling: str,
    associations: int,
    tls: bool,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    tls_name: str | None,
    as_json: bool,
) -> None:
    """Send files, or folders of files, by C-STORE, as they are. Every response status is checked."""
    from firstread.dicom.sender import send_paths

    if not tls and (ca or cert or key or tls_name):
        raise click.UsageError("--ca, --cert, --key and --tls-name belong to --tls")
    if key and not cert:
        raise click.UsageError("--key belongs to --cert")
    settings = Settings()
    listens_on = settings.tls_host if tls else settings.dicom_host
    target = listens_on if listens_on != "0.0.0.0" else "127.0.0.1"
    host, port = host or target, port or (settings.dicom_tls_port if tls else settings.dicom_port)
    outcomes = send_paths(
        paths,
        host=host,
        port=port,
        called_ae=called or settings.ae_title,
        calling_ae=calling,
        associations=associations,
        tls=ClientTls(ca, cert, key, tls_name) if tls else None,
    )
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if as_json:
        print_json([{"path": str(o.path), "ok": o.ok, "status": o.status, "message": o.message} for o in outcomes])
    else:
        for outcome in failed:
            echo(f"{outcome.path}: {outcome.message}", err=True)
        for message, count in Counter(o.message for o in failed).items():
            echo(f"not stored ({message}): {count}", err=True)
        if not tls and any(o.message == "no connection" for o in failed) and speaks_tls(host, port):
            echo(f"port {port} of {host} speaks TLS: --tls", err=True)
        echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} stored")
    raise SystemExit(1 if failed else 0)
