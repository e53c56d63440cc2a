"""Which files make up our side of TLS as a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TlsFiles:
    """Certificate, key and whose clients may come in.

    Attributes
    ----------
    cert_file : Path
        Our certificate, with its chain behind it.
    key_file : Path or None
        Its key; None where it stands in the same file.
    client_ca : Path or None
        Authorities of client certificates; None where none is asked for.
    client_names : tuple of str
        Names of which a client's certificate must have one; empty: any.
    """

    cert_file: Path
    key_file: Path | None = None
    client_ca: Path | None = None
    client_names: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(path for path in (self.cert_file, self.key_file, self.client_ca) if path is not None)
