"""The places of associations: how many, whose, and who has to go where a peer holds them without using them."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final, Protocol

from dicom_listener.peers.limits import DISPLACED

STALLED_S: Final = 0.8
"""A peer that leaves a message unfinished for so long may lose its place to another host's."""


class Holder(Protocol):
    """Who holds a place; :class:`dicom_listener.scp.association.ListenerAssociation`."""

    @property
    def stalled_s(self) -> float:
        """Seconds for which it has not used it."""

    def cut(self, reason: str) -> None:
        """End it, soon."""


class Places:
    """Places by calling AE title and host.

    One calling AE title of one host may take three quarters of the places at most, once it has half of them: the last
    quarter is for others. Where all are taken, the host that has more than half of them loses those that it does not
    use: a place a newcomer.

    Parameters
    ----------
    count : int
        How many there are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._lock = threading.Lock()
        self._keys: dict[Holder, tuple[str, str]] = {}
        self._leaving: set[Holder] = set()

    @property
    def is_served(self) -> bool:
        """Whether there is a process that serves associations: the one that has these places."""
        return True

    def has_room(self, calling_ae: str, host: str) -> bool:
        """Whether such a caller may have a place now."""
        with self._lock:
            taken = len(self._keys) - len(self._leaving)
            of_caller = sum(key == (calling_ae, host) for key in self._keys.values())
            most = self.count - self.count // 4 if of_caller >= self.count // 2 else self.count
            return taken < most

    def take(self, holder: Holder, calling_ae: str, host: str) -> None:
        """Give a place."""
        with self._lock:
            self._keys[holder] = (calling_ae, host)

    def leave(self, holder: Holder) -> tuple[str, str] | None:
        """Take a place back; whose it was, by calling AE title and host."""
        with self._lock:
            self._leaving.discard(holder)
            return self._keys.pop(holder, None)

    def keep(self, holder: Holder) -> None:
        """Let one stay that was to go: it has gone on meanwhile."""
        with self._lock:
            self._leaving.discard(holder)

    def make_room(self, host: str) -> bool:
        """End the association that has been stalled for longest, of the host that has most; whether one goes.

        Nobody goes for a caller of the same host, nor of a host that has half of the places or fewer.
        """
        with self._lock:
            greedy, held = Counter(of for _, of in self._keys.values()).most_common(1)[0] if self._keys else ("", 0)
            if greedy == host or held <= self.count // 2:
                return False
            stalled = [
                (holder.stalled_s, index, holder)
                for index, (holder, (_, of)) in enumerate(self._keys.items())
                if of == greedy and holder not in self._leaving
            ]
            seconds, _, longest = max(stalled, default=(0.0, 0, None))
            if longest is None or seconds < STALLED_S:
                return False
            self._leaving.add(longest)
        longest.cut(DISPLACED)
        return True

    def __len__(self) -> int:
        return len(self._keys)
