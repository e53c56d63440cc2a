"""Mails: subject, text, and sending by SMTP."""

from __future__ import annotations

import smtplib
import ssl
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

from firstread.codes import IMAGE_CODES
from firstread.pipelines import NOTICE, flags_by_itself, headline_of, may_be_hint, meaning_of, names
from firstread.report.words import HINT, measured
from firstread.states import JobState
from worker.outputs.destinations.file import EmailDestination, NotDelivered
from worker.outputs.messages import UNREAD
from worker.pipelines.reasons import Caution

UNREAD_TEXT = (
    "Firstread tried and failed: nobody and nothing has read this study. This says nothing of what is in it.",
    "Please have it read by a person.",
)
MOST_LINES = 200
"""Flags that a mail of many lists."""

EXPLAINED = (
    Caution.IDENTITY_IN_DOUBT,
    Caution.IMAGES_REJECTED,
    Caution.NO_FLAG_FOR_AGE,
    Caution.HINT_FOR_AGE,
    Caution.HINT_ONLY,
    Caution.CONTRAST_SUSPECTED,
    Caution.ARTEFACT_SUSPECTED,
    Caution.FEW_FLAGS_RIGHT,
)
"""Warnings that a mail explains: the result may be another patient's or of images that were taken back, nothing can be
flagged, something in the images looks like the finding, or few flags are right."""


def send_email(destination: EmailDestination, content: dict[str, Any], to: Sequence[str] = ()) -> str:
    """Send a mail by SMTP, with STARTTLS where the destination says so; every recipient must be accepted.

    Parameters
    ----------
    to : sequence of str
        Some of the destination's addresses; empty: all of them.
    """
    to = to or destination.to
    mail = EmailMessage()
    mail["Subject"] = subject(content)
    mail["From"] = destination.sender
    mail["To"] = ", ".join(to)
    mail["Date"] = formatdate(localtime=False)
    mail["Message-ID"] = f"<firstread-{content['delivery']}-{uuid.uuid4().hex}@{destination.sender.split('@')[-1]}>"
    mail.set_content(mail_text(content))
    try:
        with connect(destination, destination.timeout_s) as smtp:
            refused = smtp.send_message(mail)
    except smtplib.SMTPResponseException as error:
        raise NotDelivered(f"SMTP {error.smtp_code}") from error
    except smtplib.SMTPRecipientsRefused as error:
        raise NotDelivered(f"SMTP: {len(error.recipients)} recipients refused") from error
    except (smtplib.SMTPException, OSError) as error:
        raise NotDelivered(type(error).__name__) from error
    if refused:
        raise NotDelivered(f"SMTP: {len(refused)} of {len(to)} recipients refused")
    return "SMTP 250"


@contextmanager
def connect(destination: EmailDestination, timeout_s: float) -> Iterator[smtplib.SMTP]:
    """A connection to the mail server: STARTTLS and login where the destination says so.

    Raises
    ------
    smtplib.SMTPException, OSError
        Where any of it fails.
    """
    with smtplib.SMTP(destination.host, destination.port, timeout=timeout_s) as smtp:
        if destination.starttls:
            ca_file = str(destination.ca_file) if destination.ca_file else None
            smtp.starttls(context=ssl.create_default_context(cafile=ca_file))
        if destination.username is not None and destination.password is not None:
            smtp.login(destination.username, destination.password.value().get_secret_value())
        yield smtp


def subject(content: dict[str, Any]) -> str:
    """Subject of a mail: no patient data, ever, since subjects are shown on lock screens."""
    if content["event"] == "summary":
        return f"Firstread: {_count(content)} of old studies"
    if content["event"] == Caution.IDENTITY_IN_DOUBT:
        return f"Firstread: IDENTITY IN DOUBT, study {content['study_key']}"
    if content["event"] == UNREAD:
        number = f" (notice {content['escalation'] + 1})" if content["escalation"] else ""
        return f"Firstread: NOT READ ({content['pipeline']}), study {content['study_key']}{number}"
    if content["event"] == "result":
        return f"Firstread: {content['pipeline']} {content['state']}, study {content['study_key']}"
    again = f" (notice {content['escalation'] + 1}, not acknowledged)" if content["escalation"] else ""
    return f"Firstread: {headline_of(content['pipeline'])}, study {content['study_key']}{again}"


def mail_text(content: dict[str, Any]) -> str:
    """Body of a mail, for a person in a hurry."""
    if content["event"] == "summary":
        return _summary_text(content)
    lines = [subject(content), ""]
    if content["event"] == UNREAD:
        lines += [*UNREAD_TEXT, f"Reason: {content['reason'] or 'unknown'}"]
    if content["detail"] and content["state"] != JobState.FAILED:
        lines += [content["detail"], ""]
    for finding in content["findings"]:
        if finding["probability"] is not None:
            flags = finding["flagged"] or flags_by_itself(content["pipeline"], finding["finding"])
            limit = f", threshold {finding['threshold']:.2f}" if flags and finding["threshold"] is not None else ""
            mark = "  FLAGGED" if finding["flagged"] else ""
            if finding["threshold"] is None and may_be_hint(content["pipeline"], finding["finding"]):
                mark = f" ({HINT})"
            lines.append(f"{meaning_of(finding['finding'])}: {finding['probability']:.2f}{limit}{mark}")
        elif finding["value"] is not None:
            lines.append(f"{meaning_of(finding['finding'])}: {measured(finding['value'], finding['unit'])}")
    told = (content["predictive_value"] or {}).get("words")
    lines += [told] if told else []
    lines += [
        IMAGE_CODES[code]
        for code in EXPLAINED
        if code in content["warnings"] and not (told and code == Caution.FEW_FLAGS_RIGHT)
    ]
    if content["warnings"]:
        lines.append(f"Warnings: {', '.join(content['warnings'])}")
    lines += ["", f"StudyInstanceUID: {content['study_instance_uid']}", f"Revision: {content['revision']}"]
    if "patient_id" in content:
        lines.append(f"Patient ID: {content['patient_id'] or '-'}")
        lines.append(f"Accession number: {content['accession_number'] or '-'}")
    if content["event"] == UNREAD:
        uid = content["study_instance_uid"]
        verdict = f"A person has read it: firstread verdict {uid} --pipeline {content['pipeline']} --truth 0 (or 1)"
        return "\n".join([*lines, "", verdict, f"Try again: firstread retry {uid}", ""])
    command = acknowledge_command(content["study_instance_uid"], content["pipeline"])
    if content.get("link"):
        lines += ["", f"Look and acknowledge: {content['link']}", "The link is for you alone, and for 24 hours."]
    lines += ["", f"Acknowledge: {command}", "", NOTICE, ""]
    return "\n".join(lines)


def acknowledge_command(uid: str, pipeline: str) -> str:
    """What a person types to acknowledge a flag."""
    return f"firstread flags ack {uid}" + ("" if pipeline == names()[0] else f" --pipeline {pipeline}")


def _count(content: dict[str, Any]) -> str:
    """How many flags, and how many studies that nobody read, a summary lists, in words."""
    flags = "1 flag" if content["count"] == 1 else f"{content['count']} flags"
    return f"{flags} and {len(content['not_read'])} not read" if content["not_read"] else flags


def _summary_text(content: dict[str, Any]) -> str:
    """Body of a mail about flags of old studies."""
    lines = [
        subject(content),
        "",
        "These studies were made long before they came, so nobody is called. Each flag stands until somebody",
        "acknowledges it.",
        "",
    ]
    for flag in content["flags"][:MOST_LINES]:
        day = f"made {flag['made_at'][:10]}, " if flag["made_at"] else ""
        lines.append(
            f"study {flag['study_key']}, {day}{headline_of(flag['pipeline'])}: "
            f"{meaning_of(flag['finding'])} {flag['probability']:.2f}, threshold {flag['threshold']:.2f}"
        )
        if "patient_id" in flag:
            lines.append(f"    patient ID {flag['patient_id'] or '-'}, accession {flag['accession_number'] or '-'}")
        lines.append(f"    {acknowledge_command(flag['study_instance_uid'], flag['pipeline'])}")
    values = [flag["predictive_value"] or {} for flag in content["flags"][:MOST_LINES]]
    lines += dict.fromkeys(value["words"] for value in values if value.get("words"))
    for study in content["not_read"][:MOST_LINES]:
        lines.append(f"study {study['study_key']}: NOT READ ({study['pipeline']}), {study['reason'] or 'unknown'}")
        lines.append(f"    firstread retry {study['study_instance_uid']}")
    if content["count"] > MOST_LINES:
        lines.append(f"and {content['count'] - MOST_LINES} more: firstread flags --open")
    return "\n".join([*lines, "", NOTICE, ""])
