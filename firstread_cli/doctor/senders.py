"""What ``firstread doctor`` says of the senders whose studies close at once, and of those that have to wait."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from firstread.errors import FirstreadError
from firstread.records import SenderHabit
from firstread.records.senders import WHOLE_STUDIES
from firstread.settings import ENV_PREFIX, Settings
from firstread_cli.database import open_database
from firstread_cli.doctor import Check

SHOWN = 20


def check_habits(settings: Settings) -> Iterator[Check]:
    """How long a study of each sender waits after a release, those heard of last first."""
    if not settings.learns_grace:
        yield Check("grace", "ok", f"studies close {_seconds(settings)} after a release ({ENV_PREFIX}GRACE_S)")
        return
    try:
        with open_database(settings).read() as session:
            query = select(SenderHabit).order_by(SenderHabit.noted_at.desc(), SenderHabit.id).limit(SHOWN)
            habits = session.scalars(query).all()
    except (FirstreadError, SQLAlchemyError):
        return  # `check_database` says what is wrong
    for habit in habits:
        name = f"sender {habit.calling_ae or '-'} at {habit.host or 'an unknown host'}"
        yield Check(name, "ok", _of(habit, settings))


def _of(habit: SenderHabit, settings: Settings) -> str:
    if habit.whole_studies >= WHOLE_STUDIES:
        return f"its studies close at once: the last {habit.whole_studies} came whole, in one association each"
    text = (
        f"its studies close {_seconds(settings)} after a release: {habit.whole_studies} of the {WHOLE_STUDIES} in a "
        "row that would close the next at once came whole"
    )
    if habit.went_on_at is not None:
        text += f"; an image came after a close at {habit.went_on_at:%Y-%m-%d %H:%M} UTC"
    return text


def _seconds(settings: Settings) -> str:
    return f"{settings.release_grace_s:g} s"
