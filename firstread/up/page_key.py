"""The key of the worklist page while nobody has an account: part of the address that `firstread up` prints."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from firstread.settings import Settings
from firstread.storage.disk import private

if TYPE_CHECKING:
    from firstread.records import Database

KEY_FILE = "web.key"


def key_path(settings: Settings) -> Path:
    """The file that holds the key, for its owner alone."""
    return settings.run_dir / KEY_FILE


def make_key(settings: Settings) -> str:
    """A new key in the place of the last one."""
    key = secrets.token_urlsafe(24)
    partial = key_path(settings).with_suffix(".part")
    partial.unlink(missing_ok=True)
    with open(partial, "w", encoding="ascii", opener=private) as file:
        file.write(key)
    os.replace(partial, key_path(settings))
    return key


def read_key(settings: Settings) -> str | None:
    """The key that is valid now; None where there is none."""
    try:
        return key_path(settings).read_text(encoding="ascii").strip() or None
    except OSError:
        return None


def page_address(settings: Settings, key: str | None = None) -> str:
    """Where a browser on this machine finds the page. A key stands in the fragment, which browsers send nowhere."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.web_host, settings.web_host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{settings.web_port}/" + (f"#key={key}" if key else "")


def announced_page(settings: Settings, db: Database, key: str) -> list[str]:
    """Lines that say where the page is, and to whom it answers."""
    from firstread.records import has_accounts

    with db.read() as session:
        by_key = not settings.web_user_header and not has_accounts(session)
    if not by_key:
        return [f"worklist page: {settings.web_url or page_address(settings)}"]
    return [
        f"worklist page: {page_address(settings, key)}",
        "Nobody has an account, so the page answers on this machine only, to whoever has that address.",
        "Accounts: firstread web users add NAME --role reader",
    ]
