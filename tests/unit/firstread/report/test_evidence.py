"""Evidence of a result that was carried over names the images of the revision that was scored."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from firstread.records import Instance, Job, RevisionInstance
from firstread.report.evidence import renumbering
from tests.builders.scored_studies import scored_study
from tests.builders.site import database_in, settings_in


def test_of_an_instance_with_several_contents_the_newest_stands_for_all(tmp_path: Path) -> None:
    db = database_in(settings_in(tmp_path / "home"))
    scored = scored_study(db, settings_in(tmp_path / "home"), n=2)
    first, second = scored.instance_ids
    with db.write() as session:
        job = session.get_one(Job, scored.job_id)
        row = session.get_one(Instance, first)
        values = {c.key: getattr(row, c.key) for c in Instance.__mapper__.columns if c.key not in {"id", "sha256"}}
        earlier = values | {"spool_key": "earlier", "received_at": row.received_at - timedelta(seconds=1)}
        later = values | {"spool_key": "later", "received_at": row.received_at + timedelta(seconds=1)}
        changed = [Instance(**later, sha256="later"), Instance(**earlier, sha256="earlier")]
        session.add_all(changed)
        session.flush()
        session.add_all(RevisionInstance(revision_id=job.revision_id, instance_id=image.id) for image in changed)
        newest, oldest = changed[0].id, changed[1].id
        assert renumbering(session, job) == {first: newest, newest: newest, oldest: newest, second: second}
    db.dispose()
