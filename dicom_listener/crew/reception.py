"""What the process that accepts connections runs: the lobby, the roster of those that serve, and ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dicom_listener.crew.roster import Roster
from dicom_listener.crew.seats import Member
from dicom_listener.peers.limits import Limits
from dicom_listener.peers.refusals import DoorBook
from dicom_listener.scp.openings import Opening
from dicom_listener.scp.places import Places
from dicom_listener.scp.server import Door
from firstread.metrics.server import MetricsServer, serve_metrics
from firstread.processes.lasting import lasting_thread
from firstread.records import Database
from firstread.records.migrate import require_head
from firstread.settings import Settings


class CrewReception:
    """Accepts connections for processes that serve them. ``start`` and ``close`` may be called once each.

    Parameters
    ----------
    openings : sequence of Opening
        The ports.
    on_gone : callable
        Called when a process is gone.
    """

    def __init__(
        self, settings: Settings, openings: Sequence[Opening], on_gone: Callable[[], None], *, serves_metrics: bool
    ) -> None:
        self._settings = settings
        self._openings = openings
        self._serves_metrics = serves_metrics
        self._db = Database(settings.database_url)
        self._limits = Limits.of(settings)
        each = self._limits.associations
        self._roster = Roster(Places(each), each, on_gone)
        self._book = DoorBook(self._db)
        self._door: Door | None = None
        self._metrics: MetricsServer | None = None

    def start(self) -> None:
        """Be ready for processes. Raises SchemaMismatch, MetricsPortTaken."""
        require_head(self._db)
        self._limits.warn_of_few(self._settings)
        if self._serves_metrics:
            self._metrics = serve_metrics(self._settings, "listen", self._db)
        lasting_thread(self._roster.run, "crew").start()
        self._book.start()

    def welcome(self, member: Member) -> None:
        """Hand connections to a process, once it says that it is ready."""
        self._roster.add(member)

    def look(self) -> None:
        """Accept connections, once a process is ready."""
        if self._door is None and self._roster.anyone_ready.is_set():
            self._door = Door(
                self._settings, self._openings, self._limits, self._roster, self._roster.let_in, self._book.note
            )
            for opening in self._openings:
                opening.announce(self._settings.ae_title)

    def close_door(self) -> None:
        """Accept nobody any more."""
        if self._door is not None:
            self._door.close()
        self._roster.stop()

    def close(self) -> None:
        """Write what is noted, end."""
        self._book.stop()
        if self._metrics is not None:
            self._metrics.close()
        self._db.dispose()
