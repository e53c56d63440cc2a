"""What peers of every door that speaks TLS are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_listener import metrics
from firstread.settings import Settings

if TYPE_CHECKING:
    from firstread.tls.server import ServerTls


def server_tls(settings: Settings) -> ServerTls | None:
    """Our side of TLS; None where no certificate is named."""
    files = settings.tls_files
    if files is None:
        return None
    from firstread.tls.server import ServerTls

    return ServerTls(files, metrics.CERTIFICATE_FAILURES.inc)
