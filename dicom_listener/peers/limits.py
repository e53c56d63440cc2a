"""What a peer may send, and in what time: the limits of the upper layer, and the faults that end an association."""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass
from typing import Final

from firstread.settings import Settings

LOGGER = logging.getLogger(__name__)

REQUEST_BYTES: Final = 512 * 2**10
"""Longest A-ASSOCIATE-RQ: 128 presentation contexts with twenty transfer syntaxes each take a sixth of it."""
REQUEST_ITEMS: Final = 6000
"""Most items and sub-items of an A-ASSOCIATE-RQ."""
COMMAND_BYTES: Final = 64 * 2**10
"""Longest command set (PS3.7 section 6.3.1)."""
PDU_BYTES: Final = 2**20
"""Longest P-DATA-TF: four times the length that we ask for, since some senders do not listen."""
SHORT_PDU_BYTES: Final = 2**10
"""Longest PDU of any other kind; by the standard these have four bytes."""
REQUEST_S: Final = 10.0
PDU_S: Final = 60.0
PACE_S: Final = 60.0
SLOWEST_BYTES_PER_S: Final = 8 * 2**10

UNSPECIFIED, UNRECOGNIZED_PDU, UNEXPECTED_PDU, UNEXPECTED_PARAMETER, INVALID_PARAMETER = 0, 1, 2, 5, 6
"""Reasons of an A-ABORT by the service provider (PS3.8 table 9-26)."""

BAD_PDU, SLOW, COMMAND_TOO_LONG, TOO_LARGE, DISPLACED = "bad_pdu", "slow", "command_too_long", "too_large", "displaced"

FILES_OF_AN_ASSOCIATION: Final = 4
"""Descriptors: its socket, the two ends of its bell, the file that it writes."""
FILES_OF_A_TUNNEL: Final = 2
"""Descriptors that TLS adds to a connection: the two ends of the socket that it is passed on to."""
VISITORS: Final = 256
"""Most connections at once that have not asked for an association yet."""
LEAST_VISITORS: Final = 8


class Fault(Exception):
    """A peer does what no peer may do: the association ends.

    Attributes
    ----------
    reason : str
        Code of the refusal's row and metric.
    diagnostic : int
        Reason in the A-ABORT.
    """

    def __init__(self, reason: str, diagnostic: int = UNSPECIFIED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.diagnostic = diagnostic


@dataclass(frozen=True)
class Limits:
    """Times and places.

    Attributes
    ----------
    request_s : float
        From the connection to the last byte of the A-ASSOCIATE-RQ.
    pdu_s : float
        From the first byte of a PDU to its last, as far as the peer was waited for.
    pace_s : float
        Time of waiting over which a data set must come at :data:`SLOWEST_BYTES_PER_S`.
    associations : int
        Most at once.
    visitors : int
        Most connections at once without an association.
    """

    request_s: float = REQUEST_S
    pdu_s: float = PDU_S
    pace_s: float = PACE_S
    associations: int = 64
    visitors: int = VISITORS

    @classmethod
    def of(cls, settings: Settings, descriptors: int | None = None) -> Limits:
        """Limits of one process: no longer than the network timeout, in no more than half of the descriptors."""
        half = (descriptors or resource.getrlimit(resource.RLIMIT_NOFILE)[0]) // 2
        more = FILES_OF_A_TUNNEL if settings.tls_files is not None else 0
        each = FILES_OF_AN_ASSOCIATION + more
        associations = max(1, min(settings.max_associations, (half - LEAST_VISITORS * (1 + more)) // each))
        left = (half - associations * each) // (1 + more)
        return cls(
            request_s=min(REQUEST_S, settings.network_timeout_s),
            pdu_s=min(PDU_S, settings.network_timeout_s),
            pace_s=min(PACE_S, settings.network_timeout_s),
            associations=associations,
            visitors=max(1, min(VISITORS, left)),
        )

    def warn_of_few(self, settings: Settings) -> None:
        """One line where the limit of open files allows fewer associations than the settings."""
        if self.associations < settings.max_associations:
            LOGGER.warning(
                "%d associations at once, not %d: the limit of open files allows no more",
                self.associations,
                settings.max_associations,
            )

    @property
    def visitors_of_a_host(self) -> int:
        """Most of the visitors that one host may have."""
        return max(1, self.visitors // 4)


class Pace:
    """How long a peer has been waited for. Time in which we do not read counts for nobody."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._in_pdu = False
        self._in_data = False
        self._pdu_s = 0.0
        self._data_s = 0.0
        self._data_bytes = 0

    def begin_pdu(self) -> None:
        """The first byte of a PDU is there."""
        self._in_pdu, self._pdu_s = True, 0.0

    def end_pdu(self) -> None:
        """A PDU is complete."""
        self._in_pdu = False

    def begin_data(self) -> None:
        """A data set begins."""
        self._in_data, self._data_s, self._data_bytes = True, 0.0, 0

    def end_data(self) -> None:
        """A data set is complete."""
        self._in_data = False

    def came(self, count: int) -> None:
        """Bytes came."""
        self._data_bytes += count

    def waited(self, seconds: float) -> None:
        """The peer was waited for. Raises :class:`Fault` for one that is too slow."""
        if self._in_pdu:
            self._pdu_s += seconds
            if self._pdu_s >= self._limits.pdu_s:
                raise Fault(SLOW)
        if self._in_data:
            self._data_s += seconds
            if self._data_s >= self._limits.pace_s:
                if self._data_bytes < SLOWEST_BYTES_PER_S * self._data_s:
                    raise Fault(SLOW)
                self._data_s, self._data_bytes = 0.0, 0
