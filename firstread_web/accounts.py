"""Who may open the page: accounts with a role, made and removed on the command line."""

from __future__ import annotations

from sqlalchemy import delete, select

from firstread.actions import audit
from firstread.errors import FirstreadError
from firstread.records import Database, WebUser
from firstread.records.clock import now_of
from firstread_web.passwords import hash_of
from firstread_web.visitors import end_sessions_of


class AccountError(FirstreadError):
    """An account that cannot be made or removed; the text says why."""


LONGEST_NAME = 64


def add_account(db: Database, name: str, role: str, password: str | None) -> bool:
    """Make an account, or give one another role and password; its sessions end. Returns whether it is new.

    Parameters
    ----------
    role : str
        ``viewer`` or ``reader``.
    password : str or None
        None for somebody whom a proxy lets in.

    Raises
    ------
    AccountError, firstread_web.passwords.WeakPassword
    """
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise AccountError(f"a name has 1 to {LONGEST_NAME} printable characters and no space around it")
    kept = None if password is None else hash_of(password)
    with db.write() as session:
        user = session.scalar(select(WebUser).where(WebUser.name == name))
        is_new = user is None
        if user is None:
            user = WebUser(name=name, created_at=now_of(session))
            session.add(user)
        user.role, user.password_hash = role, kept
        end_sessions_of(session, name)
        detail = {"name": name, "role": role, "password": kept is not None}
        audit.record(session, "web.account", subject=f"account/{name}", detail=detail)
    return is_new


def remove_account(db: Database, name: str) -> None:
    """Remove an account and end its sessions. Raises :class:`AccountError`."""
    with db.write() as session:
        if session.scalar(select(WebUser.id).where(WebUser.name == name)) is None:
            raise AccountError("there is no account of that name; `firstread web users list` lists them")
        session.execute(delete(WebUser).where(WebUser.name == name))
        end_sessions_of(session, name)
        audit.record(session, "web.account_removed", subject=f"account/{name}")


def accounts(db: Database) -> list[WebUser]:
    """All accounts by name."""
    with db.read() as session:
        return list(session.scalars(select(WebUser).order_by(WebUser.name)))
