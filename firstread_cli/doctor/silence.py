"""What ``firstread doctor`` says of the silence of a new site."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from firstread.errors import FirstreadError
from firstread.records.silence import read_silence
from firstread.settings import ENV_PREFIX, Settings
from firstread_cli.database import open_database
from firstread_cli.doctor import Check


def check_silence(settings: Settings) -> Iterator[Check]:
    """Whether results are sent at all."""
    if not settings.silent:
        return
    try:
        with open_database(settings).read() as session:
            silence = read_silence(session, settings.silent)
    except (FirstreadError, SQLAlchemyError):
        return  # `check_database` says what is wrong
    if silence.holds:
        since = f" since {silence.began_at:%Y-%m-%d}" if silence.began_at else ""
        yield Check("SILENT", "warn", f"no object, mail or message is sent{since}; `firstread golive --end` ends it")
    else:
        yield Check("silence", "warn", f"ended; {ENV_PREFIX}SILENT has no effect and can go")
