"""``make soak``: hours of studies through both doors, with processes killed in between; at the end nothing is missing.

Phantoms come by C-STORE and inbox, some twice, some with a late slice; files that are no images come too. Every
so often the listener or the worker is killed with SIGKILL. At the end every study must be ``DONE`` exactly once, every
file accounted for, and no process may have grown without bound.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select, text

from firstread.dicom.sender import send_paths
from firstread.phantoms.ct import CtLabels, write_series
from firstread.phantoms.head import HeadSpec, head_study
from firstread.processes.spawning import is_running
from firstread.records import LISTENER, WORKER, Database, Process
from firstread.settings import Settings
from firstread_cli.demo.system import DemoFailed, start_system, stop_system, wait_for

SLICES = 16
DRAIN_LIMIT_S = 900.0
GROWTH_LIMIT_MB = 600
MAX_WAITING = 20


@dataclass
class Soak:
    """What was given in, and what was seen."""

    settings: Settings
    db: Database
    folder: Path
    rng: random.Random
    expected: dict[str, int] = field(default_factory=dict)
    """StudyInstanceUID to number of different images."""
    rubbish: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    rss_mb: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Kind of process to the smallest and largest resident size seen of one and the same process."""

    def give_in(self, number: int) -> None:
        """One study through a door chosen by lot."""
        head = head_study(HeadSpec(slices=SLICES, size=128), CtLabels(seed=number, study="soak"))
        place = self.folder / "phantoms" / str(number)
        paths = write_series(head.objects, place)
        uid = str(head.objects[0].StudyInstanceUID)
        self.expected[uid] = len(paths)
        way = self.rng.choice(["send", "send", "twice", "late", "inbox"])
        if way == "inbox":
            shutil.copytree(place, self.settings.inbox_dir / f"soak{number}")
        elif way == "late":
            self.send(paths[:-1])
            time.sleep(self.settings.release_grace_s + 1)
            self.send(paths[-1:])
        else:
            self.send(paths)
        if way == "twice":
            self.send(paths)
        if number % 7 == 0:
            (self.settings.inbox_dir / f"rubbish{number}.txt").write_text(f"not an image {number}")
            self.rubbish += 1
        shutil.rmtree(place)

    def send(self, paths: list[Path]) -> None:
        """Send until all are stored, as a modality does: the listener may be dead for a moment."""
        end = time.monotonic() + 120
        left = paths
        while left:
            outcomes = send_paths(
                left, host="127.0.0.1", port=self.settings.dicom_port, called_ae=self.settings.ae_title, timeout_s=15
            )
            left = [outcome.path for outcome in outcomes if not outcome.ok]
            if left and time.monotonic() > end:
                raise RuntimeError(f"{len(left)} images were not taken within 120 s")
            if left:
                time.sleep(1)

    def processes(self) -> dict[str, int]:
        """Pid of a running listener and of a running worker."""
        with self.db.read() as session:
            query = select(Process.kind, Process.pid).where(Process.kind.in_((LISTENER, WORKER)))
            rows = session.execute(query).all()
        return {kind: pid for kind, pid in rows if is_running(pid) and pid != os.getpid()}

    def kill_one(self) -> None:
        """SIGKILL to the listener or the worker."""
        processes = self.processes()
        if processes:
            kind = self.rng.choice(sorted(processes))
            with contextlib.suppress(ProcessLookupError):
                os.kill(processes[kind], signal.SIGKILL)
                self.kills[kind] += 1

    def look_at_memory(self) -> None:
        """Note the resident size of each process."""
        page_mb = os.sysconf("SC_PAGE_SIZE") / 2**20
        for kind, pid in self.processes().items():
            with contextlib.suppress(OSError):
                size = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page_mb
                low, high = self.rss_mb.get(f"{kind} {pid}", (size, size))
                self.rss_mb[f"{kind} {pid}"] = (min(low, size), max(high, size))

    def waiting(self) -> int:
        """Studies given in without an outcome."""
        return len(self.expected) - len(self.finished())

    def finished(self) -> set[str]:
        """Studies with an outcome."""
        with self.db.read() as session:
            query = text(
                "SELECT DISTINCT study_instance_uid FROM study_result WHERE state IN ('DONE','REJECTED','FAILED')"
            )
            return set(session.scalars(query))

    def settled(self) -> bool:
        """Whether every study is DONE over all of its images and every piece of rubbish is noted."""
        return not self.faults()

    def faults(self) -> list[str]:
        """What is missing or wrong, in words."""
        with self.db.read() as session:
            rows = session.execute(
                text("SELECT study_instance_uid, state, count(*) FROM study_result WHERE finding = 'any' GROUP BY 1, 2")
            ).all()
            counted = session.execute(
                text(
                    "SELECT study_instance_uid, count(DISTINCT sop_instance_uid) FROM slice_score "
                    "WHERE finding = 'any' GROUP BY 1"
                )
            ).all()
            slices = {str(uid): int(count) for uid, count in counted}
            twice = session.scalar(
                text(
                    "SELECT count(*) FROM (SELECT 1 FROM slice_score "
                    "GROUP BY study_instance_uid, pipeline, sop_instance_uid, frame, finding HAVING count(*) > 1) t"
                )
            )
            refused = session.scalar(text("SELECT count(*) FROM intake_refusal WHERE source = 'inbox'"))
        answers = {(uid, state): count for uid, state, count in rows}
        faults = [
            f"study {n}: {answers.get((uid, 'DONE'), 0)} results"
            for n, uid in enumerate(self.expected)
            if answers.get((uid, "DONE")) != 1
        ]
        faults += [
            f"study {n}: {slices.get(uid, 0)} of {count} slices scored"
            for n, (uid, count) in enumerate(self.expected.items())
            if slices.get(uid, 0) != count
        ]
        if twice:
            faults.append(f"{twice} slices scored twice")
        if refused != self.rubbish:
            faults.append(f"{refused} of {self.rubbish} files that are no images were noted")
        faults += [
            f"{name} grew from {low:.0f} to {high:.0f} MB"
            for name, (low, high) in self.rss_mb.items()
            if name.startswith("listener") and high - low > GROWTH_LIMIT_MB
        ]
        return faults


def run(minutes: float, kill_every_s: float, seed: int) -> int:
    """Soak; 0 where nothing is missing."""
    home = Path(tempfile.mkdtemp(prefix="firstread-soak-"))
    process, settings, log = start_system(home)
    try:
        wait_for(lambda: b"ready" in log.read_bytes(), process, 120, "starting")
        db = Database(settings.database_url)
        soak = Soak(settings, db, home, random.Random(seed))
        end = time.monotonic() + 60 * minutes
        next_kill = time.monotonic() + kill_every_s
        number = 0
        while time.monotonic() < end:
            if process.poll() is not None:
                raise RuntimeError(f"`firstread up` ended with {process.returncode}")
            if time.monotonic() > next_kill:
                soak.kill_one()
                next_kill = time.monotonic() + kill_every_s * soak.rng.uniform(0.5, 1.5)
            if soak.waiting() < MAX_WAITING:
                soak.give_in(number)
                number += 1
            else:
                time.sleep(0.5)
            soak.look_at_memory()
        print(f"given in: {number} studies, {soak.rubbish} files that are no images; killed: {dict(soak.kills)}")
        with contextlib.suppress(DemoFailed):
            wait_for(soak.settled, process, DRAIN_LIMIT_S, "the rest")
        faults = soak.faults()
        for name, (low, high) in soak.rss_mb.items():
            print(f"  {name}: {low:.0f} to {high:.0f} MB")
        print("\n".join(faults) if faults else "nothing is missing, nothing is there twice")
        db.dispose()
        return 1 if faults else 0
    finally:
        stop_system(process)
        shutil.rmtree(home, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kill-every-s", type=float, default=45.0, help="0.5 to 1.5 times this between two kills")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    return run(options.minutes, options.kill_every_s, options.seed)


if __name__ == "__main__":
    sys.exit(main())
