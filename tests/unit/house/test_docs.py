"""Documents and code say the same, both ways."""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from firstread.effects import AFTER, BEFORE, Kind
from firstread.metrics.former import FORMER_NAMES
from firstread.records import Database
from firstread.records.migrate import head_revision, upgrade
from firstread.settings import ENV_PREFIX, Settings
from firstread.states import DeliveryState
from firstread_cli.main import COMMANDS, cli
from tests.builders.inventory import metrics, view_columns
from tests.builders.pacs_page import FIRSTREAD_HOST, PACS_HOST, block
from tests.builders.reason_codes import codes_in_source
from tools.docs.figures import cards
from tools.docs.generate import BLOCK, BLOCKS, documents, rendered
from worker.outputs.deliveries.lanes import KINDS
from worker.outputs.destinations.file import DestinationsFile, DicomDestination, EmailDestination, Hl7Destination
from worker.outputs.hl7.codes import read_codes
from worker.outputs.senders import http

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = documents()
IDS = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
NO_CODES = {
    *("accepted", "rejected", "normal", "pool", "none", "identity", "identity_in_part", "own", "images"),
    *("listener", "worker"),
    "joint_flag",
    *(kind.value for kind in Kind),
    *(BEFORE, AFTER),
}
"""Names of folders, findings, processes, steps, operating points, effects and changes that look like codes."""

NOT_SETTINGS = {"FIRSTREAD_CONFIG", "FIRSTREAD_TEST_DATA"}


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_of(text: str) -> list[str]:
    """Everything that a document shows as code: fenced lines and inline spans."""
    fences = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for fence in fences for line in fence.splitlines()] + re.findall(r"`([^`\n]+)`", rest)


def rows_below(text: str, heading: str) -> list[str]:
    """First cells of the first table below a heading, in order, back-quotes removed."""
    section = re.split(r"^##+ ", text.split(f"## {heading}\n", 1)[1], flags=re.MULTILINE)[0]
    return re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_generated_tables_are_what_the_code_says(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert rendered(text) == text, "run `make docs`"


def test_every_generated_table_stands_in_a_document() -> None:
    markers = [m[2] for path in DOCUMENTS for m in BLOCK.finditer(path.read_text(encoding="utf-8"))]
    assert sorted(markers) == sorted(BLOCKS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_settings_that_are_named_exist(path: Path) -> None:
    named = set(re.findall(r"\bFIRSTREAD_[A-Z0-9_]+\b", path.read_text(encoding="utf-8")))
    settings = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    assert named <= settings | {name + "_FILE" for name in settings} | NOT_SETTINGS


def test_every_code_of_the_source_stands_in_the_schema_document() -> None:
    places = codes_in_source()
    assert {"no_pipeline", "worker_died", "lease_expired", "not_a_head", "dicomdir", "no_mask"} <= places.keys()
    documented = set(re.findall(r"^\| `(\w+)` \|", text_of("docs/schema.md").split("## Reasons and warnings")[1], re.M))
    assert {code: path for code, path in places.items() if code not in documented | NO_CODES} == {}
    assert "data_error" in documented


def test_every_setting_stands_in_the_settings_document() -> None:
    text = text_of("docs/settings.md")
    assert re.findall(r"^\| `FIRSTREAD_(\w+)`", text, flags=re.MULTILINE) == [
        name.upper() for name in Settings.model_fields
    ]
    assert "FIRSTREAD_CONFIG" in text


def test_views_and_columns_are_the_same_in_code_and_document() -> None:
    text = text_of("docs/schema.md")
    columns = view_columns()
    headings = set(re.findall(r"^## (\w+)$", text, flags=re.MULTILINE))
    assert headings - {"States", "Tables"} == set(columns)
    for view, names in columns.items():
        inherited = columns[view.removesuffix("_history")] if view.endswith("_history") else ()
        documented = rows_below(text, view)
        if f"The columns of `{view.removesuffix('_history')}`" in text and view.endswith("_history"):
            whole = tuple(inherited) + tuple(documented) if len(documented) < len(names) else tuple(documented)
        else:
            whole = tuple(documented)
        assert whole == names, view


def test_metrics_that_are_named_exist() -> None:
    known = set().union(*(m.series for m in metrics().values())) | set(metrics()) | set(FORMER_NAMES)
    for path in DOCUMENTS:
        for word in re.findall(r"\bfirstread_[a-z0-9_]+", path.read_text(encoding="utf-8")):
            ours = {"firstread_reader", "firstread_service", "firstread_cli", "firstread_web"}
            assert word in known | ours, f"{path.name}: {word}"


def subcommand(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that ``firstread WORDS...`` names, and what is left for it."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        child = command.get_command(click.Context(command), rest[0])
        assert child is not None, f"no command {' '.join(words)}"
        command, rest = child, rest[1:]
    return command, rest


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_commands_that_are_shown_exist_with_their_options(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    hand_written = BLOCK.sub("", text)
    for line in code_of(hand_written):
        match = re.match(r"(?:\S*=\S+ )*(?:\.venv/bin/)?firstread( .*)?$", line.split("#")[0].strip())
        if match is None or "..." in line:
            continue
        command, rest = subcommand(shlex.split(match[1] or ""))
        options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help", "--version"}
        assert {word.split("=")[0] for word in rest if word.startswith("--")} <= options, line


def test_every_command_stands_in_the_commands_document() -> None:
    headings = re.findall(r"^### firstread ([\w-]+)$", text_of("docs/commands.md"), flags=re.MULTILINE)
    assert headings == list(COMMANDS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_make_targets_that_are_shown_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), flags=re.MULTILINE))
    for line in code_of(path.read_text(encoding="utf-8")):
        for target in re.findall(r"(?:^|&& |=\S+ )make ([a-z-]+)", line):
            assert target in targets, line


def anchors(text: str) -> set[str]:
    """Names that a link may have behind ``#``: headings in small letters, blanks as hyphens, without other signs."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=IDS)
def test_links_and_paths_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", link):
            file, _, anchor = link.partition("#")
            assert (path.parent / file).exists(), link
            assert not anchor or anchor in anchors((path.parent / file).read_text(encoding="utf-8")), link
    for code in code_of(text):
        if re.fullmatch(
            r"(firstread|firstread_cli|firstread_web|dicom_listener|worker|training|tools|tests|migrations|deploy|monitoring|docs"
            r"|requirements)/[\w./-]*",
            code,
        ):
            assert (ROOT / code).exists(), code


@pytest.mark.parametrize(("name", "least"), [("README.md", 4), ("docs/operations.md", 1)])
def test_sql_that_is_shown_runs(name: str, least: int, tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path / 'shown.sqlite'}")
    upgrade(db)
    db.dispose()
    blocks = re.findall(r"^```sql\n(.*?)^```", text_of(name), flags=re.MULTILINE | re.DOTALL)
    statements = [s for block in blocks for s in block.split(";") if s.strip()]
    assert len(statements) >= least
    with sqlite3.connect(tmp_path / "shown.sqlite") as connection:
        for statement in statements:
            assert connection.execute(statement).fetchall() == []


def test_the_destinations_that_are_shown_are_understood(tmp_path: Path) -> None:
    block, codes = re.findall(r"^```toml\n(.*?)^```", text_of("docs/deliveries.md"), flags=re.MULTILINE | re.DOTALL)
    read = DestinationsFile.model_validate(tomllib.loads(block))
    assert {d.kind for d in read.destination} == set(KINDS)
    assert read.escalation[0].destinations == ("on-call", "radiology")
    (tmp_path / "codes.toml").write_text(codes)
    assert read_codes(tmp_path / "codes.toml").procedure("head_ct")[:3] == ("24725-4", "CT Head", "LN")


def test_the_keys_of_an_hl7_destination_stand_in_the_document() -> None:
    section = text_of("docs/deliveries.md").split("## Messages to a RIS\n")[1].split("\n\n- ")[0]
    keys = re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| (`[^|]+) \|", section, flags=re.MULTILINE)))
    common = set(EmailDestination.model_fields) & set(DicomDestination.model_fields) - {"host", "port"}
    assert set(keys) == set(Hl7Destination.model_fields) - common


def test_the_pacs_of_the_readme_is_ten_lines_that_are_understood() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", text_of("README.md"), flags=re.MULTILINE | re.DOTALL)
    (read,) = DestinationsFile.model_validate(tomllib.loads(block)).destination
    assert (read.kind, read.name) == ("dicom", "pacs") and len(block.splitlines()) <= 10


def test_the_pacs_page_names_the_same_ports_and_titles_everywhere() -> None:
    (destination,) = DestinationsFile.model_validate(tomllib.loads(block("toml"))).destination
    config = json.loads(block("json"))
    fields = Settings.model_fields
    assert isinstance(destination, DicomDestination)
    assert (destination.host, destination.port, destination.called_ae) == (
        PACS_HOST,
        config["DicomPort"],
        config["DicomAet"],
    )
    ours = [fields["ae_title"].default, FIRSTREAD_HOST, fields["dicom_port"].default]
    assert list(config["DicomModalities"].values()) == [ours]


def test_what_a_flag_means_is_reckoned_from_the_card() -> None:
    (head,) = (card for card in cards() if card["task"] == "bleed")
    left = head["metrics"]["out_of_fold"]["patients_at_flag"]["specificity"]["value"]
    text = text_of("README.md")
    assert f"of 100 heads without a bleed about {100 - 100 * left:.0f} are flagged too" in text
    assert text.index("are flagged too") < text.index("## Running it for good")


def test_the_shell_completes_as_the_readme_says() -> None:
    (line,) = re.findall(r"^(eval .*?_FIRSTREAD_COMPLETE=bash_source.*?)\s+#", text_of("README.md"), re.M)
    script = f"""{line}
        for words in "firstread fla" "firstread results --pip" "firstread models act"; do
            COMP_WORDS=($words); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
            _firstread_completion firstread; echo "${{COMPREPLY[@]}}"
        done"""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.stdout.splitlines() == ["flags", "--pipeline", "activate"], done.stderr


def test_install_commands_without_make_name_what_is_there() -> None:
    text = text_of("README.md")
    script, extra = re.search(r"^(\S+install\.sh) && ", text, re.M), re.search(r"pip install '\.\[(\w+)\]'", text)
    assert script and extra and os.access(ROOT / script[1], os.X_OK)
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert extra[1] in project["optional-dependencies"]


def test_states_of_a_delivery_and_keys_of_a_message_stand_in_the_document() -> None:
    text = text_of("docs/deliveries.md")
    assert set(rows_below(text, "What happens to a message")) == set(DeliveryState)
    for name in (http.SIGNATURE_HEADER, http.TIMESTAMP_HEADER, http.DELIVERY_HEADER):
        assert f"`{name}`" in text


def test_the_conformance_statement_names_what_the_listener_takes() -> None:
    from pynetdicom import ALL_TRANSFER_SYNTAXES, sop_class

    from dicom_listener.intake import status as store_status
    from firstread.dicom.network import VERIFICATION

    text = text_of("docs/conformance.md")
    for uid in [*ALL_TRANSFER_SYNTAXES, *sop_class._STORAGE_CLASSES.values(), VERIFICATION]:
        assert f"{uid}" in text
    statuses = {value for name, value in vars(store_status).items() if name.isupper()}
    assert len(statuses) == 6
    assert {int(code, 16) for code in re.findall(r"\| 0x([0-9A-F]{4})", text)} == statuses


def test_documents_name_no_figure_of_this_project_that_code_fixes_otherwise(tmp_path: Path) -> None:
    """Defaults that the prose repeats."""
    settings = Settings(home=tmp_path)
    operations = text_of("docs/operations.md")
    assert f"port {settings.dicom_port}" in operations
    assert f"`FIRSTREAD_GRACE_S` ({settings.release_grace_s:g} s)" in operations
    assert f"`FIRSTREAD_QUIET_S` ({settings.quiet_s:g} s)" in operations
    assert f"`FIRSTREAD_MAX_WAIT_S` ({settings.max_wait_s / 60:g} min)" in operations
    assert f"port {settings.port_of_metrics('up')}" in text_of("docs/metrics.md")
    assert f"port {settings.port_of_metrics('work')}" in text_of("docs/metrics.md")
    assert f"AE title `{settings.ae_title}`" in text_of("README.md")
    assert f"| {settings.max_associations}; `FIRSTREAD_MAX_ASSOCIATIONS`" in text_of("docs/conformance.md")


def test_the_change_log_names_the_schema_of_the_newest_release() -> None:
    newest = text_of("CHANGELOG.md").split("\n## ")[1]
    assert f"Schema revision {head_revision()}." in newest


def test_the_python_that_the_readme_promises_is_the_one_that_installs() -> None:
    requires = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text_of("pyproject.toml"))
    assert requires is not None
    assert requires.groups() == ("11", "13")
    assert "Python 3.11 or 3.12" in text_of("README.md")
