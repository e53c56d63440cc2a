"""One study as one HTML page that needs nothing else: slices, heat map, mask, numbers, warnings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment
from sqlalchemy import select
from sqlalchemy.orm import Session

from firstread.clock import utcnow
from firstread.pipelines import NOTICE, flags_by_itself, meaning_of
from firstread.records import Database, Delivery, Flag, Job, OutputObject, Result, Revision, Study, Verdict
from firstread.records.studies import find_study
from firstread.settings import Settings
from worker.outputs.words import measured
from worker.report.evidence import evidence_pictures
from worker.report.slices import file_uri, slices_of

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Firstread: study {{ study.id }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1100px; padding: 1em; color: #1a1a1a; }
.notice { background: #fff3cd; border: 1px solid #d39e00; padding: .6em 1em; font-weight: 600; }
.flag { background: #f8d7da; border: 1px solid #b02a37; padding: .6em 1em; margin: .6em 0; }
table { border-collapse: collapse; margin: .5em 0 1em; } th, td { text-align: left; padding: .2em .9em .2em 0;
border-bottom: 1px solid #ddd; vertical-align: top; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
figure { display: inline-block; margin: .2em; font-size: 12px; text-align: center; background: #111; color: #ddd; }
figure img { display: block; } figure.hot { outline: 2px solid #dc3545; } .evidence { max-width: 100%; }
h2 { border-bottom: 2px solid #ccc; } code { font-size: 12px; overflow-wrap: anywhere; } .quiet { color: #666; }
</style></head><body>
<p class="notice">{{ notice }}</p>
<h1>Study {{ study.id }}</h1>
<table>
<tr><th>StudyInstanceUID</th><td><code>{{ study.study_instance_uid }}</code></td></tr>
<tr><th>Patient ID</th><td>{{ study.patient_id or "-" }}</td></tr>
<tr><th>Accession number</th><td>{{ study.accession_number or "-" }}</td></tr>
<tr><th>Modality, scanner</th><td>{{ study.modality or "-" }},
{{ study.station_name or study.manufacturer or "-" }}</td></tr>
<tr><th>Came by</th><td>{{ study.source }}, {{ study.calling_ae or study.source_name or "-" }}</td></tr>
<tr><th>Received</th><td>{{ study.received_at | time }}</td></tr>
</table>
{% for flag in flags %}<p class="flag"><b>{{ flag.finding | meaning }}: flagged</b> at {{ flag.flagged_at | time }},
probability {{ "%.3f" | format(flag.probability) }}, threshold {{ "%.3f" | format(flag.threshold) }}.
{% if flag.acknowledged_at %}Acknowledged by {{ flag.acknowledged_by }} at {{ flag.acknowledged_at | time }}.
{% else %}Not acknowledged.{% endif %}</p>{% endfor %}
{% for job in jobs %}
<h2>{{ job.row.pipeline }}: {{ job.row.state }}{% if job.row.reason %} ({{ job.row.reason }}){% endif %}</h2>
<p class="quiet">revision {{ job.revision }}, models {{ job.row.models | join(", ") or "-" }}</p>
{% if job.row.detail and job.row.state != "FAILED" %}<p><b>{{ job.row.detail }}</b></p>{% endif %}
{% if job.row.warnings %}<p><b>Warnings:</b> {{ job.row.warnings | join(", ") }}</p>{% endif %}
{% if job.results %}<table><tr><th>Finding</th><th>Probability</th><th>Threshold</th><th>Value</th><th></th>
<th>Model</th></tr>
{% for r in job.results %}<tr><td>{{ r.finding | meaning }}</td><td class="n">{{ r.probability | p }}</td>
<td class="n">{% if r.flagged or r.finding is leading(job.row.pipeline) %}{{ r.threshold | p }}{% endif %}</td>
<td class="n">{% if r.value is not none %}{{ r.value | measured(r.unit) }}{% endif %}</td>
<td>{{ "flagged" if r.flagged else "" }}</td>
<td>{{ r.model_name }} {{ r.model_version }}</td></tr>{% endfor %}</table>{% endif %}
{% for name, uri in job.pictures.items() %}<p><img class="evidence" alt="{{ name }}" src="{{ uri }}"></p>{% endfor %}
{% if job.slices %}<h3>Slices</h3><p class="quiet">In the order of scoring, with the probability of the leading finding;
the outline is the model's mask.{% if job.missing %} {{ job.missing }} frames cannot be shown: their files are gone or
cannot be read.{% endif %}</p>
{% for s in job.slices %}<figure{% if s.masked %} class="hot"{% endif %}>
<img alt="slice {{ s.number }}" src="{{ s.uri }}">
{{ s.number }}: {{ "%.2f" | format(s.probability) }}</figure>{% endfor %}
{% elif job.missing %}<p class="quiet">{{ job.missing }} frames cannot be shown: their files are gone.</p>{% endif %}
{% if job.row.series_notes %}<h3>Series</h3><table>{% for note in job.row.series_notes %}<tr>
<td><code>{{ note.SeriesInstanceUID }}</code></td><td>{{ note.n_instances }} images</td>
<td>{{ "chosen" if note.chosen else "left aside" }}</td>
<td>{{ note.reasons | join(", ") }}</td></tr>{% endfor %}</table>
{% endif %}
{% if job.row.stage_seconds %}<p class="quiet">{% for stage, s in job.row.stage_seconds.items() %}{{ stage }}
{{ "%.2f" | format(s) }} s{{ "" if loop.last else ", " }}{% endfor %}</p>{% endif %}
{% if job.objects %}<h3>DICOM objects</h3><table>{% for o in job.objects %}<tr><td>{{ o.kind }}</td>
<td><code>{{ o.sop_instance_uid or "" }}</code></td>
<td>{{ o.reason or "written" }}</td></tr>{% endfor %}</table>{% endif %}
{% if job.deliveries %}<h3>Deliveries</h3><table>{% for d in job.deliveries %}<tr><td>{{ d.destination }}</td>
<td>{{ d.kind }}</td><td>{{ d.state }}</td><td>{{ d.attempts }} attempts</td><td>{{ d.last_status or "" }}</td></tr>
{% endfor %}</table>{% endif %}
{% endfor %}
{% if verdicts %}<h2>Verdicts</h2><table>{% for v in verdicts %}<tr><td>{{ v.at | time }}</td><td>{{ v.pipeline }}</td>
<td>{{ v.finding | meaning }}</td><td>{{ "there" if v.truth else "not there" }}</td><td>{{ v.by or v.source }}</td>
<td>{{ v.note or "" }}</td></tr>{% endfor %}</table>{% endif %}
<p class="quiet">Written {{ now | time }}.</p>
</body></html>
"""


def write_report(db: Database, settings: Settings, study_uid: str, path: Path) -> None:
    """Write the page of a study; readable by its owner only, since it names the patient.

    Raises
    ------
    firstread.records.studies.UnknownStudy
        If there is no such study.
    """
    with db.read() as session:
        html = render(content_of(session, settings, find_study(session, study_uid)))
    partial = path.with_name(path.name + ".part")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(html)
    partial.rename(path)


def render(content: Mapping[str, Any]) -> str:
    """The page; every value is escaped."""
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters["time"] = lambda moment: f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    environment.filters["p"] = lambda p: "" if p is None else f"{p:.3f}"
    environment.filters["meaning"] = meaning_of
    environment.filters["measured"] = measured
    environment.tests["leading"] = lambda finding, pipeline: flags_by_itself(pipeline, finding)
    return environment.from_string(PAGE).render(content)


def content_of(session: Session, settings: Settings, study: Study) -> dict[str, Any]:
    """Everything that the page shows."""
    rows = session.execute(
        select(Job, Revision.number)
        .join(Revision, Revision.id == Job.revision_id)
        .where(Revision.study_id == study.id)
        .order_by(Revision.number.desc(), Job.pipeline)
    )
    return {
        "study": study,
        "flags": session.scalars(select(Flag).where(Flag.study_id == study.id).order_by(Flag.id)).all(),
        "jobs": [_job(session, settings, job, number) for job, number in rows],
        "verdicts": session.scalars(select(Verdict).where(Verdict.study_id == study.id).order_by(Verdict.id)).all(),
        "notice": NOTICE,
        "now": utcnow(),
    }


def _job(session: Session, settings: Settings, job: Job, revision: int) -> dict[str, Any]:
    active = (Result.job_id == job.id, Result.run == job.run, Result.role == "active")
    objects = select(OutputObject).where(OutputObject.job_id == job.id, OutputObject.run == job.run)
    slices, missing = slices_of(session, settings, job)
    pictures = evidence_pictures(settings, job.evidence_path)
    return {
        "row": job,
        "revision": revision,
        "results": session.scalars(select(Result).where(*active).order_by(Result.id)).all(),
        "pictures": {name: file_uri(path) for name, path in pictures.items()},
        "slices": slices,
        "missing": missing,
        "objects": session.scalars(objects.order_by(OutputObject.id)).all(),
        "deliveries": session.scalars(select(Delivery).where(Delivery.job_id == job.id).order_by(Delivery.id)).all(),
    }
