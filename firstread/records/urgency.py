"""Who is served first, as expressions over revisions and their studies; queries must join both."""

from __future__ import annotations

from sqlalchemy import and_, func

from firstread.records.intake import Revision, Study

PRIORITY = func.coalesce(Study.priority, Revision.priority)
"""That set by hand, else that of the close."""

WAITS_AS_OLD = and_(Revision.old, Study.priority.is_(None))
"""Made long ago; a priority by hand makes it count as fresh."""

ORDER = (PRIORITY, WAITS_AS_OLD, Revision.closed_at, Revision.id)
"""Lower priorities first, fresh studies before old ones, then first closed first."""
