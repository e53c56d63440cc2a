"""Finding a study by what a person has at hand, and listings that fit their terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from firstread.actions.verdicts import import_truth
from firstread.records import Database, Revision, Study
from firstread.records.studies import UnknownStudy, find_study
from firstread.settings import Settings
from firstread_cli.listings import RESULT_COLUMNS, SPARE_COLUMNS
from firstread_cli.main import cli
from firstread_cli.tables import fitting
from tests.builders.scored_studies import Scored, scored_study
from tests.builders.site import database_in, settings_in


@pytest.fixture
def site(tmp_path: Path) -> tuple[Settings, Database, list[Scored]]:
    settings = settings_in(tmp_path / "home")
    db = database_in(settings)
    return settings, db, [scored_study(db, settings, study_uid=f"2.25.{n}", accession=f"A-{n}") for n in (7, 8)]


def test_a_study_goes_by_uid_accession_number_and_key(site: tuple[Settings, Database, list[Scored]]) -> None:
    _, db, (first, second) = site
    with db.write() as session:
        for name in ("2.25.7", "A-7", str(first.study_id), f"#{first.study_id}"):
            assert find_study(session, name).id == first.study_id, name
        for name in ("A-9", "#99", "99999999999999999999", "", "#", "#x", "\N{SUPERSCRIPT TWO}"):
            with pytest.raises(UnknownStudy, match="no such study"):
                find_study(session, name)
        with pytest.raises(UnknownStudy):
            find_study(session, str(first.study_id), keys=False)
        with pytest.raises(UnknownStudy):  # a change asks for the mark: the number may be meant for somebody else
            find_study(session, str(first.study_id), bare=False)
        session.execute(update(Study).where(Study.id == second.study_id).values(accession_number=str(first.study_id)))
        with pytest.raises(UnknownStudy, match=f"#{first.study_id} is the key"):
            find_study(session, str(first.study_id))
        assert find_study(session, f"#{first.study_id}").id == first.study_id
        assert find_study(session, f"#{first.study_id}", bare=False).id == first.study_id
        assert find_study(session, str(first.study_id), keys=False).id == second.study_id


def test_what_a_log_line_names_is_what_firstread_study_takes(site: tuple[Settings, Database, list[Scored]]) -> None:
    _, db, (first, _) = site
    with db.read() as session:
        logged = session.get_one(Revision, 1).describe()["study"]
    done = CliRunner().invoke(cli, ["study", str(logged), "--json"])
    assert json.loads(done.output)["study"]["study_instance_uid"] == first.study_uid


def test_a_number_in_a_list_of_diagnoses_is_never_a_key(
    site: tuple[Settings, Database, list[Scored]], tmp_path: Path
) -> None:
    file = tmp_path / "truth.csv"
    file.write_text(f"accession_number,finding,truth\n{site[2][0].study_id},any,1\n", encoding="utf-8")
    assert import_truth(site[1], file).unmatched == [2]


def test_results_name_accession_number_and_file(site: tuple[Settings, Database, list[Scored]]) -> None:
    with site[1].write() as session:
        session.execute(update(Study).values(source="inbox", source_name="monday/head.zip/IM1"))
    out = CliRunner().invoke(cli, ["results"]).output
    assert "A-7" in out and "monday/head.zip/IM1" in out and "2.25.7" in out
    assert re.match(r"accession_number +source_name +pipeline", out)


@pytest.mark.parametrize("width", [80, 100, 132, 160, 250])
def test_a_narrow_terminal_keeps_the_columns_that_identify_studies(width: int) -> None:
    row = {
        "accession_number": "A-100",
        "source_name": "pacs.example",
        "pipeline": "head_ct",
        "state": "DONE",
        "finding": "any",
        "probability": 0.931,
        "value": None,
        "unit": None,
        "threshold": 0.214,
        "flagged": True,
        "reason": None,
        "warnings": ["spacing_unknown"],
        "scored_at": "2026-11-20 08:30:00",
        "study_instance_uid": "2.25." + "1" * 38,
    }
    columns = fitting([row], RESULT_COLUMNS, SPARE_COLUMNS, width)
    assert {"accession_number", "state", "finding", "probability", "flagged", "reason"} <= set(columns)
    assert sum(max(len(name), len(str(row[name] or ""))) + 2 for name in columns) - 2 <= width
    assert ("study_instance_uid" in columns) == (width >= 160)
    assert (columns == RESULT_COLUMNS) == (width == 250)
    for without in ({**row, "accession_number": None}, {**row, "accession_number": ""}):
        columns = fitting([row, without], RESULT_COLUMNS, SPARE_COLUMNS, width)
        assert {"study_instance_uid", "state", "finding", "probability", "flagged"} <= set(columns)
