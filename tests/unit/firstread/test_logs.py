"""What stands in a log: our own words, made fit for a terminal, and of libraries only that they spoke."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from firstread.logs import AGAIN_S, JsonFormatter, LibraryFilter, setup_logging
from firstread.settings import Settings
from firstread.settings.secrets import secrets_of
from firstread.text import clean
from firstread_cli import tables

SECRET = "Nachtigall^Florentine"


@pytest.fixture
def lines(make_settings: Callable[..., Settings]) -> Iterator[Callable[[], list[dict[str, object]]]]:
    """Logs of this process go to a home of the test's own; reads them."""
    root, showwarning, excepthook = logging.getLogger(), warnings.showwarning, sys.excepthook
    handlers, level = list(root.handlers), root.level
    quiet = {name: logging.getLogger(name).level for name in ("pydicom", "pynetdicom")}
    for name in quiet:
        logging.getLogger(name).setLevel(logging.NOTSET)  # whoever imported our helpers has silenced them
    path = setup_logging(make_settings(), "test", to_stderr=False)
    yield lambda: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in quiet.items():
        logging.getLogger(name).setLevel(old)
    warnings.showwarning, sys.excepthook = showwarning, excepthook


def broken_header() -> Dataset:
    """A header that pydicom warns about in the sender's own words."""
    ds = Dataset()
    ds.PatientName = SECRET
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, implicit_vr=True, little_endian=True, enforce_file_format=False)
    character_set = f"{SECRET}\x1b[31m\r\n".encode().ljust(30)
    element = b"\x08\x00\x05\x00" + len(character_set).to_bytes(4, "little") + character_set
    return dcmread(io.BytesIO(element + buffer.getvalue()), force=True)


def test_libraries_do_not_repeat_what_senders_wrote(lines: Callable[[], list[dict[str, object]]]) -> None:
    from highdicom import utils  # noqa: F401  # its loggers are there

    for _ in range(50):
        str(broken_header().PatientName)
        logging.getLogger("highdicom.sr").warning("no such code for %s", SECRET)
        logging.getLogger("pydicom").error(f"Unknown encoding '{SECRET}'")
        logging.getLogger("pynetdicom.acse").warning(f"peer {SECRET}\x1b[2J")
        logging.getLogger("highdicom").info(SECRET)
        warnings.warn(f"value {SECRET} is wrong", UserWarning, stacklevel=1)
    logged = lines()
    assert SECRET not in json.dumps(logged) and "Nachtigall" not in json.dumps(logged)
    assert 4 <= len(logged) <= 8, "each place once, whatever it says"
    assert any("highdicom.sr spoke at test_logs.py" in str(line["message"]) for line in logged)
    assert any("UserWarning at test_logs.py" in str(line["message"]) for line in logged)


def test_exceptions_leave_class_and_place(lines: Callable[[], list[dict[str, object]]]) -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("worker.scoring.scorer").exception("an object broke its reader")
        logging.getLogger("celery.worker").error("Process failed", exc_info=True)
        logging.getLogger("celery.app.trace").error("Task raised: %r", ValueError(SECRET))
    logged = lines()
    assert [line.get("error") for line in logged[:2]] == ["ValueError", "ValueError"]
    assert "Nachtigall" not in json.dumps(logged)


def test_what_strangers_wrote_is_escaped_and_cut(lines: Callable[[], list[dict[str, object]]]) -> None:
    text = "A\x1b[31m\r\n\x9b2J\u202eB\u2028" + "x" * 5000
    logging.getLogger("dicom_listener").warning("from %s", text, extra={"reason": text})
    (line,) = lines()
    message, reason = str(line["message"]), str(line["reason"])
    assert message.isprintable() and reason.isprintable()
    assert r"A\x1b[31m\r\n\x9b2J\u202eB\u2028" in message
    assert len(message) < 1100 and len(reason) < 300


def test_a_place_logs_again_after_an_hour() -> None:
    now = [0.0]
    keep = LibraryFilter(clock=lambda: now[0])

    def record() -> logging.LogRecord:
        return logging.LogRecord("pydicom", logging.WARNING, "/x/values.py", 7, "words", (), None)

    assert [keep.filter(record()), keep.filter(record())] == [True, False]
    now[0] = AGAIN_S
    assert keep.filter(record())


def test_a_command_prints_no_library_and_no_terminal_escape(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = [{"patient_id": "[bold]X[/bold]\x1b[31m\x9b2J\u202e", "n": 1}]
    tables.print_table(rows, ("patient_id", "n"))
    tables.print_json(rows)
    tables.echo("came from \x1b[2J\x07")
    out = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in out)
    assert r"[bold]X[/bold]\x1b[31m\x9b2J\u202e" in out
    assert json.loads(out[out.index("[\n") : out.rindex("]") + 1]) == rows
    script = (
        "import logging, warnings\nfrom firstread.logs import silence_libraries\nsilence_libraries()\n"
        f"warnings.warn({SECRET!r})\nlogging.getLogger('pydicom').error({SECRET!r})\n"
        "logging.getLogger('firstread.storage.home').warning('ours')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == "firstread: ours\n"


def test_clean() -> None:
    assert clean("Müller 李 one line") == "Müller 李 one line"
    assert clean("a\nb\t\x00\ud800") == r"a\nb\t\x00\ud800"
    assert clean("abcdef", 4) == "abc…"


def test_no_secret_is_written_whoever_says_it() -> None:
    formatter = JsonFormatter("listen", secrets_of(Settings(broker_url="redis://:geheim%20word@h:1/0")))
    record = logging.LogRecord("kombu", logging.ERROR, __file__, 1, "no line to %s", ("redis://:geheim word@h",), None)
    record.reason = "redis://:geheim%20word@h:1/0 is away"
    line = formatter.format(record)
    assert "geheim" not in line
    assert json.loads(line)["message"] == "no line to redis://:***@h"
