"""``firstread send``: our own sender, for tests of a site and for files that other senders cannot send."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from firstread.settings import Settings
from firstread_cli.tables import echo, print_json


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(exists=True, path_type=Path))
@click.option("--host", help="Default: this site's listener.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: this site's listener.")
@click.option("--called", help="Called AE title; default: this site's.")
@click.option("--calling", default="FIRSTREADSND", show_default=True, help="Calling AE title.")
@click.option("--associations", type=click.IntRange(1, 32), default=1, show_default=True, help="Associations at once.")
@click.option("--json", "as_json", is_flag=True, help="JSON, a row a file.")
def send(
    paths: tuple[Path, ...],
    host: str | None,
    port: int | None,
    called: str | None,
    calling: str,
    associations: int,
    as_json: bool,
) -> None:
    """Send files, or folders of files, by C-STORE, as they are. Every response status is checked."""
    from firstread.dicom.sender import send_paths

    settings = Settings()
    target = settings.dicom_host if settings.dicom_host != "0.0.0.0" else "127.0.0.1"
    outcomes = send_paths(
        paths,
        host=host or target,
        port=port or settings.dicom_port,
        called_ae=called or settings.ae_title,
        calling_ae=calling,
        associations=associations,
    )
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if as_json:
        print_json([{"path": str(o.path), "ok": o.ok, "status": o.status, "message": o.message} for o in outcomes])
    else:
        for outcome in failed:
            echo(f"{outcome.path}: {outcome.message}", err=True)
        for message, count in Counter(o.message for o in failed).items():
            echo(f"not stored ({message}): {count}", err=True)
        echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} stored")
    raise SystemExit(1 if failed else 0)
