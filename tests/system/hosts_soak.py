"""``make soak``: more than one host for longer. One part after the other is lost while studies come without a pause.

Each round loses a worker host, a listener host, a node of the store, and Redis for a minute; at last the primary of the
database. Every image that was acknowledged must have its row, every study its result, every flag its lease.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.builders.hospital import Hospital, hospital

REDIS_AWAY_S = 60.0
DRAIN_LIMIT_S = 300.0


class Senders:
    """Studies without a pause, in some threads, until they are closed."""

    def __init__(self, site: Hospital, count: int = 2) -> None:
        self.given = 0
        self.failures: list[BaseException] = []
        self._site = site
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                number = self.given
                self.given += 1
                paths = self._site.write_study(f"soak{number}", "flag" if number % 3 == 0 else "ok")
            try:
                self._site.send(paths, 120.0)
            except BaseException as error:  # noqa: BLE001  # told at the end
                self.failures.append(error)
                return
            time.sleep(0.2)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=150)


def losses(site: Hospital, rng: random.Random) -> dict[str, Callable[[], None]]:
    """What a round loses, and brings back."""

    def worker() -> None:
        host = f"worker{rng.randint(1, 3)}"
        site.lose(host)
        site.start_worker(host)

    def listener() -> None:
        number = rng.randint(1, 2)
        site.lose(f"listener{number}")
        time.sleep(3)
        site.start_listener(number)

    def store_node() -> None:
        port = rng.choice(site.stores.ports)
        site.stores.stop(port)
        time.sleep(20)
        site.stores.start(port)

    def redis() -> None:
        site.broker.kill()
        time.sleep(REDIS_AWAY_S)
        site.broker.start()

    return {"a worker host": worker, "a listener host": listener, "a store node": store_node, "Redis": redis}


def run(minutes: float, seed: int) -> int:
    """Soak; 0 where nothing is missing."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="firstread-hosts-") as name, hospital(Path(name)) as site:
        senders = Senders(site)
        end = time.monotonic() + 60 * minutes
        while True:
            for what, lose in losses(site, rng).items():
                lose()
                print(f"lost and back: {what}; {senders.given} studies", flush=True)
                time.sleep(rng.uniform(2, 8))
            if time.monotonic() > end:
                break
        site.database.fail_over()
        print("the standby was promoted", flush=True)
        time.sleep(15)
        senders.close()
        limit = time.monotonic() + DRAIN_LIMIT_S
        while site.faults() and time.monotonic() < limit:
            time.sleep(1)
        faults = [*site.faults(), *map(repr, senders.failures)]
        print(f"given in: {senders.given} studies, {len(site.sent.acknowledged)} images acknowledged")
        print("\n".join(faults[:50]) if faults else "nothing is missing, nothing is there twice")
        return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    return run(options.minutes, options.seed)


if __name__ == "__main__":
    sys.exit(main())
