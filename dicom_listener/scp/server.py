"""The C-STORE and C-ECHO server of one process: pynetdicom set up for speed and for whatever arrives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dicom_listener import metrics
from dicom_listener.peers.limits import Limits
from dicom_listener.peers.proxies import Proxies
from dicom_listener.peers.refusals import TurnedAway
from dicom_listener.scp.association import ListenerAssociation
from dicom_listener.scp.associations import Associations, Guest
from dicom_listener.scp.lobby import Lobby, Room
from dicom_listener.scp.openings import Opening, open_ports
from dicom_listener.scp.places import Places
from dicom_listener.scp.visitors import Caller, Visitor
from firstread.processes.lasting import lasting_thread
from firstread.settings import Settings


class Door:
    """The ports and the lobby behind them, in a thread of its own.

    Parameters
    ----------
    settings : Settings
        Whose word on hosts is taken.
    openings : sequence of Opening
        The ports.
    places : Room
        Of associations.
    let_in : callable
        Begins an association with a visitor.
    on_refused : callable
        Called for each connection that was turned away.
    """

    def __init__(
        self,
        settings: Settings,
        openings: Sequence[Opening],
        limits: Limits,
        places: Room,
        let_in: Callable[[Visitor, Caller], None],
        on_refused: Callable[[TurnedAway], None],
    ) -> None:
        self._on_refused = on_refused
        proxies = Proxies(settings.trusted_proxies)
        self._lobby = Lobby(openings, limits, places, proxies, let_in, self._turn_away)
        self._thread = lasting_thread(self._lobby.run, "scp")
        self._thread.start()

    def _turn_away(self, away: TurnedAway) -> None:
        metrics.ASSOCIATIONS.labels(outcome="rejected").inc()
        self._on_refused(away)

    def close(self) -> None:
        """Take no more connections."""
        self._lobby.stop()
        self._thread.join()


class Scp:
    """The DICOM door of a listener that is one process.

    Parameters
    ----------
    settings : Settings
        Addresses and ports.
    associations : Associations
        What serves those who are let in.
    on_refused : callable
        Called for each connection that was turned away.

    Attributes
    ----------
    ports : list of int
        Those that are listened on, the plain one first and that of TLS behind it.

    Raises
    ------
    PortTaken
        From :meth:`start`.
    """

    def __init__(
        self, settings: Settings, associations: Associations, on_refused: Callable[[TurnedAway], None]
    ) -> None:
        self._settings = settings
        self._associations = associations
        self._on_refused = on_refused
        self.places = Places(associations.limits.associations)
        associations.on_left = self._on_left
        self.ports: list[int] = []
        self._door: Door | None = None

    def start(self) -> None:
        """Bind the ports and serve."""
        openings = open_ports(self._settings)
        self.ports = [opening.port for opening in openings]
        self._door = Door(
            self._settings, openings, self._associations.limits, self.places, self._let_in, self._on_refused
        )
        for opening in openings:
            opening.announce(self._settings.ae_title)

    def _let_in(self, visitor: Visitor, caller: Caller) -> None:
        """Begin an association. Raises RuntimeError or OSError where the system has no room for it."""
        guest = Guest(visitor.sock, bytes(visitor.data), visitor.host, visitor.peer[1])
        assoc = self._associations.make(guest)
        self.places.take(assoc, caller.calling_ae, visitor.host)
        self._associations.start(assoc)

    def _on_left(self, assoc: ListenerAssociation) -> None:
        self.places.leave(assoc)

    def stop(self) -> None:
        """Take no more associations."""
        if self._door is not None:
            self._door.close()
            self._door = None
