"""Retention of what was refused: files in ``refused/`` and ``inbox/rejected/`` that nobody removed."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlalchemy import select

from firstread.actions import audit
from firstread.records import Database, IntakeRefusal
from firstread.settings import Settings

BATCH = 200
UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""Stands in a path for bytes that are no text: no file has such a path, so a person has to remove it."""


def remove_refused(db: Database, settings: Settings, before: datetime, dry_run: bool = False) -> tuple[int, int]:
    """Remove files refused before a moment, with the text beside them; the rows stay, without a path.

    Files go first: where a crash comes between, the next pass finds the row and no file, and ends the work.

    Returns
    -------
    files, size_bytes : int
    """
    roots = [(settings.home / "refused").resolve(), (settings.inbox_dir / "rejected").resolve()]
    files = size_bytes = after = 0
    while True:
        query = (
            select(IntakeRefusal)
            .where(IntakeRefusal.kept_path.is_not(None), IntakeRefusal.received_at <= before, IntakeRefusal.id > after)
            .order_by(IntakeRefusal.id)
            .limit(BATCH)
        )
        with db.write() as session:
            rows = session.scalars(query).all()
            if not rows:
                return files, size_bytes
            after = rows[-1].id
            page_files = page_bytes = 0
            for row in rows:
                path = Path(str(row.kept_path))
                root = next((r for r in roots if path.parent.resolve().is_relative_to(r)), None)
                if root is None or UNREADABLE in path.name:
                    continue
                if path.is_file():
                    page_files += 1
                    page_bytes += path.stat().st_size
                if dry_run:
                    continue
                path.unlink(missing_ok=True)
                path.with_name(path.name + ".txt").unlink(missing_ok=True)
                _tidy(path.parent, root)
                row.kept_path = None
            if page_files and not dry_run:
                detail = {"reason": "age", "files": page_files, "size_bytes": page_bytes}
                audit.record(session, "retention.delete", subject="refused", detail=detail, actor="retention")
            files += page_files
            size_bytes += page_bytes


def _tidy(folder: Path, root: Path) -> None:
    """Remove folders that are empty, up to the root and not the root itself."""
    folder = folder.resolve()
    while folder != root and folder.is_relative_to(root):
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone already
            return
        folder = folder.parent
