"""One study's page: what stands on it, its pictures, and what a reader does there."""

from __future__ import annotations

import re
import shutil

import cv2
import numpy as np
import pytest
from sqlalchemy import select, update

from firstread.actions.silence import end_silence
from firstread.clock import utcnow
from firstread.records import AuditEvent, Database, Flag, Instance, Job, Verdict
from firstread.settings import Settings
from firstread_web.accounts import add_account
from tests.builders.page import RunningPage, csrf_of, page_of
from tests.integration.firstread_web.conftest import Studies

PASSWORD = "a good long password"


def test_the_page_holds_what_is_known(page: RunningPage, studies: Studies) -> None:
    with page.db.write() as session:
        session.execute(update(Job).where(Job.id == studies.head.job_id).values(warnings=["contrast_suspected"]))
    with page.local() as client:
        text = client.get(f"/study/{studies.head.study_id}").text
        for words in (
            *("Suspected intracranial hemorrhage", "93.0 %", "50.0 %", "A-100", "MODALITY", "bleed_net 1.0"),
            *("Vessels look filled with contrast agent", "Bleed volume", "12 mL", "Nobody has acknowledged it."),
            *("Revisions", "released", "StudyInstanceUID", studies.head.study_uid),
        ):
            assert words in text, words
        assert "Fewer slices than a head examination has." in client.get(f"/study/{studies.rejected.study_id}").text
        for key in ("99", str(2**63 - 1), str(2**63), "9" * 23, "9" * 5000, "-1", "٣", "x"):
            for path in (f"/study/{key}", f"/job/{key}/slices/plain", f"/job/{key}/picture/key.png"):
                assert client.get(path).status_code == 404, path
            assert client.get(f"/job/{studies.head.job_id}/slice/{key}/plain.jpg").status_code == 404
        assert client.get("/card/bleed_net/1.0").status_code == 404
        card = client.get("/card/head_ct_bleed/2.0.0")
        assert card.status_code == 200 and "Sorting the worklist" in card.text
        assert client.get("/card/..%2F..%2Fetc/passwd").status_code == 404


def test_a_reader_acknowledges_and_judges_with_one_click(page: RunningPage, studies: Studies) -> None:
    add_account(page.db, "DRJONES", "reader", PASSWORD)
    key = studies.head.study_id
    with page.known("DRJONES", PASSWORD) as client:
        csrf = csrf_of(client.get(f"/study/{key}"))
        click = {"csrf": csrf, "pipeline": "head_ct"}
        assert client.post(f"/study/{key}/acknowledge", data=click).headers["location"] == f"/study/{key}"
        assert "Acknowledged by DRJONES" in client.get(f"/study/{key}").text
        note = {"said": "disagree", "note": "calcification <b>"}
        assert client.post(f"/study/{key}/verdict", data=click | note).status_code == 303
        assert client.post(f"/study/{key}/verdict", data=click | {"said": "there", "finding": "subdural"}).is_redirect
        assert client.post(f"/study/{key}/verdict", data=click | {"said": "maybe"}).status_code == 409
        assert client.post("/study/2/acknowledge", data=click | {"pipeline": "chest_xray"}).status_code == 409
        assert "calcification &lt;b&gt;" in client.get(f"/study/{key}").text
    with page.db.read() as session:
        assert session.scalars(select(Flag.acknowledged_by)).all() == ["DRJONES"]
        said = [(v.finding, v.truth, v.agree, v.by) for v in session.scalars(select(Verdict).order_by(Verdict.id))]
        assert said == [("any", 0, False, "DRJONES"), ("subdural", 1, None, "DRJONES")]
        rows = session.scalars(select(AuditEvent).order_by(AuditEvent.id))
        acts = [(row.actor, row.host, row.action, row.subject) for row in rows if not row.action.startswith("web.")]
    subject = f"study/{key}"
    assert acts == [
        ("DRJONES", "127.0.0.1", "flag.acknowledge", subject),
        ("DRJONES", "127.0.0.1", "verdict", subject),
        ("DRJONES", "127.0.0.1", "verdict", subject),
    ]


def test_a_viewer_looks_and_does_not_act(page: RunningPage, studies: Studies) -> None:
    add_account(page.db, "TV", "viewer", PASSWORD)
    key = studies.head.study_id
    with page.known("TV", PASSWORD) as client:
        shown = client.get(f"/study/{key}")
        assert '<button class="main">Acknowledge' not in shown.text and "I agree" not in shown.text
        click = {"csrf": csrf_of(shown), "pipeline": "head_ct", "said": "agree"}
        assert client.post(f"/study/{key}/acknowledge", data=click).status_code == 403
        assert client.post(f"/study/{key}/verdict", data=click).status_code == 403
    with page.db.read() as session:
        assert session.scalars(select(Flag.acknowledged_at)).all() == [None]
        assert session.scalars(select(Verdict)).all() == []


def _pixels(jpeg: bytes) -> np.ndarray:
    picture: np.ndarray | None = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


def test_slices_come_with_and_without_the_outline_until_retention_takes_them(
    page: RunningPage, studies: Studies
) -> None:
    job = studies.head.job_id
    with page.local() as client:
        text = client.get(f"/job/{job}/slices/outline").text
        sources = re.findall(r'src="(/job/\d+/slice/\d+/outline\.jpg)"', text)
        assert len(sources) == 4 and "4 of 4 slices" in text
        outlined, plain = (client.get(sources[1].replace("outline", look)) for look in ("outline", "plain"))
        assert outlined.headers["content-type"] == plain.headers["content-type"] == "image/jpeg"
        one, other = (_pixels(answer.content) for answer in (outlined, plain))
        assert one.shape == (320, 320, 3)
        red = (one[..., 2].astype(int) - one[..., 1] > 80).sum()
        assert red > 100 and not (other[..., 2].astype(int) - other[..., 1] > 80).any()
        assert client.get(f"/job/{job}/slice/5/plain.jpg").status_code == 404
        assert client.get(f"/job/{job}/picture/key.png").content.startswith(b"\x89PNG")
        assert client.get(f"/job/{job}/picture/mask.png").status_code == 404
        with page.db.write() as session:
            session.execute(update(Instance).values(deleted_at=utcnow()))
        shutil.rmtree(page.settings.spool_dir)
        assert "The images are gone" in client.get(f"/job/{job}/slices/plain").text
        assert "The images are gone" in client.get(f"/study/{studies.head.study_id}").text
        assert client.get(f"/job/{job}/slice/1/plain.jpg").status_code == 404


@pytest.mark.parametrize("path", ["/refusals", "/health", "/job/1/slices/plain", "/job/1/picture/key.png"])
def test_nothing_is_shown_to_strangers_and_every_view_is_a_row(page: RunningPage, path: str) -> None:
    with page.client() as stranger:
        assert stranger.get(path).status_code == 401
    with page.local() as client:
        assert client.get(path).status_code == 200
    with page.db.read() as session:
        last = session.scalars(select(AuditEvent.action).order_by(AuditEvent.id.desc())).first()
    assert last in {"web.refusals", "web.health", "web.slices", "web.study"}


def test_every_page_of_a_silent_site_says_so_until_the_silence_ends(
    site: tuple[Settings, Database], studies: Studies
) -> None:
    settings, db = site
    with page_of(settings, db, silent=True) as page, page.local() as client:
        for path in ("/", f"/study/{studies.head.study_id}", "/health"):
            assert "<strong>SILENT.</strong>" in client.get(path).text, path
        end_silence(db, True, "DRJONES")
        assert "SILENT." not in client.get("/").text
