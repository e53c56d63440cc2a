"""The file of destinations while people edit it: the last good one stays, and every fault has a name."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from firstread.settings import Settings
from worker.outputs.destinations.file import DestinationsError, complaint_at_start, read_file
from worker.outputs.destinations.watch import LOOK_S, SETTLE_S, DestinationsWatch, watch_of

HOOK = '[[destination]]\nname = "{}"\nkind = "webhook"\nurl = "http://127.0.0.1/"\nsecret = {{ env = "HOOK" }}\n'


class Site:
    """A home, its file of destinations, a watch on it, and the time."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.settings.run_dir.mkdir(parents=True)
        self.path = home / "destinations.toml"
        self.now = 0.0
        self.path.write_text(HOOK.format("pacs") + HOOK.format("duty"))
        self.watch = self.start()

    def start(self) -> DestinationsWatch:
        return DestinationsWatch(self.settings, lambda: self.now)

    def names(self, after_s: float = 0.0) -> list[str]:
        """What is in force after so long, looked at as often as lanes do."""
        end = self.now + after_s
        while self.now < end:
            self.watch.current()
            self.now += LOOK_S
        return [d.name for d in self.watch.current().destination]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "home")


def test_a_change_counts_once_the_file_stands_still(site: Site) -> None:
    assert site.names() == ["pacs", "duty"]
    site.path.write_text(HOOK.format("duty"))
    assert site.names(SETTLE_S - LOOK_S) == ["pacs", "duty"]
    assert site.names(2 * SETTLE_S) == ["duty"]
    site.path.unlink()
    assert site.names(2 * SETTLE_S) == []


def test_a_process_that_looks_seldom_takes_an_old_change_at_once(site: Site) -> None:
    site.path.write_text(HOOK.format("duty"))
    an_hour_ago = time.time() - 3600
    os.utime(site.path, (an_hour_ago, an_hour_ago))
    site.now += 3600
    assert site.names() == ["duty"]
    site.path.write_text(HOOK.format("late"))
    ahead = time.time() + 3600
    os.utime(site.path, (ahead, ahead))
    site.now += LOOK_S
    assert site.names() == ["duty"], "a clock that is ahead proves nothing"
    assert site.names(2 * SETTLE_S) == ["late"]


@pytest.mark.parametrize("moment", ["", HOOK.format("duty"), "[[destination]]\nname = "])
def test_a_file_that_is_being_written_removes_no_destination(site: Site, moment: str) -> None:
    for _ in range(20):
        site.path.write_text(moment)
        assert site.names(3 * LOOK_S) == ["pacs", "duty"]
        site.path.write_text(HOOK.format("pacs") + HOOK.format("duty"))
        assert site.names(3 * LOOK_S) == ["pacs", "duty"]
    assert site.names(2 * SETTLE_S) == ["pacs", "duty"]
    assert site.watch.complaint == ""


@pytest.mark.parametrize("broken", ["[[destination]", HOOK.format("pacs").replace("http", "gopher"), "\xff"])
def test_a_wrong_file_leaves_the_last_good_one_in_force(
    site: Site, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.path.write_bytes(broken.encode("latin-1"))
    assert site.names(10 * SETTLE_S) == ["pacs", "duty"]
    assert str(site.path) in site.watch.complaint
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1, "logged once, not at every look"
    site.path.write_text(HOOK.format("other"))
    assert site.names(2 * SETTLE_S) == ["other"]
    assert site.watch.complaint == ""


def test_the_last_good_one_stays_after_a_restart(site: Site) -> None:
    site.watch.remember()
    copy = next(site.settings.run_dir.glob("destinations-*.toml"))
    assert copy.stat().st_mode & 0o777 == 0o600
    site.path.write_text("[[destination]")
    site.watch.remember()  # what nobody has read yet is not the last good one
    site.watch = site.start()
    assert site.names() == ["pacs", "duty"]
    site.watch.remember()
    assert "no TOML" in complaint_at_start(site.settings)
    copy.unlink()
    with pytest.raises(DestinationsError, match="no TOML"):
        complaint_at_start(site.settings)
    site.watch = site.start()
    assert site.names() == []


def test_a_process_looks_through_one_watch(site: Site) -> None:
    assert watch_of(site.settings) is watch_of(site.settings.model_copy())


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (HOOK.format("first") + HOOK.format("second").replace("http", "gopher"), 'destination "second", url: '),
        (HOOK.format("first").replace('name = "first"\n', ""), "destination number 1, name: "),
        (HOOK.format("first") + "timeout_s = -1\n", 'destination "first", timeout_s: '),
        (HOOK.format("first") + "when = { flaged = true }\n", 'destination "first", when.flaged: '),
        (HOOK.format("first") + '[[escalation]]\nname = "night"\ndestinations = []\n', 'escalation "night", dest'),
        (HOOK.format("first").replace("webhook", "pigeon"), 'destination "first": '),
        (HOOK.format("first") * 2, "two destinations have one name"),
    ],
)
def test_a_fault_is_reported_with_the_name_of_its_destination(site: Site, toml: str, words: str) -> None:
    site.path.write_text(toml)
    with pytest.raises(DestinationsError) as caught:
        read_file(site.settings)
    assert words in str(caught.value)
    assert "destination.0" not in str(caught.value) and "webhook." not in str(caught.value)


def test_the_doctor_prints_the_file_in_force(site: Site) -> None:
    assert site.settings.printable()["destinations"] == str(site.path)
    site.path.unlink()
    assert site.settings.printable()["destinations"] == "none"
