"""Mails by SMTP: subject, text, sending."""

from __future__ import annotations

import smtplib
import ssl
import uuid
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

from worker.outputs.destinations.file import EmailDestination, NotDelivered
from worker.outputs.messages import mail_text, subject


def send_email(destination: EmailDestination, content: dict[str, Any]) -> str:
    """Send a mail by SMTP, with STARTTLS where the destination says so; every recipient must be accepted."""
    mail = EmailMessage()
    mail["Subject"] = subject(content)
    mail["From"] = destination.sender
    mail["To"] = ", ".join(destination.to)
    mail["Date"] = formatdate(localtime=False)
    mail["Message-ID"] = f"<firstread-{content['delivery']}-{uuid.uuid4().hex}@{destination.sender.split('@')[-1]}>"
    mail.set_content(mail_text(content))
    try:
        with smtplib.SMTP(destination.host, destination.port, timeout=destination.timeout_s) as smtp:
            if destination.starttls:
                smtp.starttls(
                    context=ssl.create_default_context(cafile=str(destination.ca_file) if destination.ca_file else None)
                )
            if destination.username is not None and destination.password is not None:
                smtp.login(destination.username, destination.password.value().get_secret_value())
            refused = smtp.send_message(mail)
    except smtplib.SMTPResponseException as error:
        raise NotDelivered(f"SMTP {error.smtp_code}") from error
    except smtplib.SMTPRecipientsRefused as error:
        raise NotDelivered(f"SMTP: {len(error.recipients)} recipients refused") from error
    except (smtplib.SMTPException, OSError) as error:
        raise NotDelivered(type(error).__name__) from error
    if refused:
        raise NotDelivered(f"SMTP: {len(refused)} of {len(destination.to)} recipients refused")
    return "SMTP 250"
