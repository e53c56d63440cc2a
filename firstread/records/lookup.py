"""The study that a person means."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.errors import FirstreadError
from firstread.records import Study
from firstread.selftest import no_self_test

KEY_MARK = "#"
LARGEST_KEY = 2**31 - 1


class UnknownStudy(FirstreadError):
    """No study goes by that name, or several do."""


def find_study(session: Session, said: str, *, keys: bool = True, bare: bool = True) -> Study:
    """The study of a StudyInstanceUID, of an accession number that only one has, or of a key as in logs and mails.

    Parameters
    ----------
    said : str
        ``12`` or ``#12`` for a key; ``#12`` is one whatever accession numbers there are.
    bare : bool
        False, for whatever changes something: only ``#12`` is a key, since a bare number may be an accession number
        that never came here, and would mean another patient.
    keys : bool
        False: what comes from other systems, where a number is never a key of ours.

    Raises
    ------
    UnknownStudy
        If there is none, if several studies have that accession number, or if one study has it and another has the key.
    """
    key = _key(said) if keys and (bare or said.startswith(KEY_MARK)) else None
    if said.startswith(KEY_MARK) and key is not None:
        rows = []
    else:
        found = session.scalar(select(Study).where(Study.study_instance_uid == said, no_self_test(Study.id)))
        if found is not None:
            return found
        query = select(Study).where(Study.accession_number == said, no_self_test(Study.id)).limit(2)
        rows = list(session.scalars(query))
        if len(rows) > 1:
            raise UnknownStudy("several studies have that accession number; give the StudyInstanceUID")
    if key is not None:
        by_key = session.scalar(select(Study).where(Study.id == key, no_self_test(Study.id)))
        if by_key is not None and rows and by_key is not rows[0]:
            raise UnknownStudy(f"that is one study's accession number and another's key; {KEY_MARK}{key} is the key")
        rows = rows or ([by_key] if by_key is not None else [])
    if not rows:
        raise UnknownStudy("no such study; `firstread results` lists those that there are")
    return rows[0]


def _key(said: str) -> int | None:
    digits = said.removeprefix(KEY_MARK)
    return int(digits) if digits.isascii() and digits.isdigit() and int(digits) <= LARGEST_KEY else None
