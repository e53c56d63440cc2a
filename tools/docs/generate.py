"""Writes the tables of the documents that the code knows best; ``make docs`` runs it, and a test compares.

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` of a document; the text around it is written
by hand.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    names = list(head)
    lines = ["| " + " | ".join(names) + " |", "| " + " | ".join("---" for _ in names) + " |"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def settings() -> str:
    """Every setting with its default and meaning."""
    from firstread.settings import ENV_PREFIX, Settings

    shown = {"home": "`~/firstread`", "inbox": "`inbox` in the home", "models_dir": "the shipped ones"}
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        empty = default is None or default == "" or default == () or default == {}
        value = shown.get(name) or (
            "" if empty else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        )
        rows.append((f"`{ENV_PREFIX}{name.upper()}`", value, field.description or ""))
    return table(("setting", "default", "meaning"), rows)


def metrics() -> str:
    """Every metric with its type, labels and meaning."""
    from tests.builders.inventory import metrics as found

    rows = (
        (f"`{m.name}`", m.type, ", ".join(f"`{label}`" for label in m.labels), m.help)
        for m in sorted(found().values(), key=lambda m: m.name)
    )
    return table(("metric", "type", "labels", "meaning"), rows)


def former_metrics() -> str:
    """Former names and labels of metrics, and the release in which they go."""
    from tests.builders.inventory import former_metrics as former

    rows = ((f"`{old}`", f"`{new}`", release) for old, new, release in former())
    return table(("former", "now", "goes in"), rows)


def _describe(name: str, command: click.Command, parents: str) -> list[str]:
    ctx = click.Context(command, info_name=name)
    usage = " ".join([parents, name, *command.collect_usage_pieces(ctx)])
    level = "###" if parents == "firstread" else "####"
    lines = [
        f"{level} {parents} {name}",
        "",
        "```",
        usage,
        "```",
        "",
        re.sub(r"\s+", " ", command.help or "").strip(),
        "",
    ]
    options = []
    for parameter in command.params:
        record = parameter.get_help_record(ctx)
        if record and isinstance(parameter, click.Option) and parameter.name != "help":
            options.append((f"`{record[0]}`", record[1]))
    if options:
        lines += [table(("option", "meaning"), options)]
    if isinstance(command, click.Group):
        for sub in command.list_commands(ctx):
            child = command.get_command(ctx, sub)
            if child is not None and not child.hidden:
                lines += _describe(sub, child, f"{parents} {name}")
    return lines


def commands() -> str:
    """Every command with its usage, help and options."""
    from firstread_cli.main import COMMANDS, cli

    ctx = click.Context(cli, info_name="firstread")
    lines: list[str] = []
    for name in COMMANDS:
        command = cli.get_command(ctx, name)
        assert command is not None
        lines += _describe(name, command, "firstread")
    return "\n".join(lines).rstrip() + "\n"


def storage() -> str:
    """The Storage SOP classes of the standard that are known by name."""
    from pydicom.uid import UID
    from pynetdicom import sop_class

    rows = sorted({str(uid): UID(uid).name for uid in sop_class._STORAGE_CLASSES.values()}.items())
    return table(("SOP class", "UID"), ((name, uid) for uid, name in rows))


def syntaxes() -> str:
    """The transfer syntaxes that are accepted without a setting."""
    from pydicom.uid import UID
    from pynetdicom import ALL_TRANSFER_SYNTAXES

    return table(("transfer syntax", "UID"), ((UID(uid).name, str(uid)) for uid in ALL_TRANSFER_SYNTAXES))


def tables() -> str:
    """The tables behind the views."""
    from firstread.records import Base

    rows = []
    for mapper in sorted(Base.registry.mappers, key=lambda m: m.class_.__tablename__):
        doc = re.sub(r"\s+", " ", (mapper.class_.__doc__ or "").strip().split("\n\n")[0])
        rows.append((f"`{mapper.class_.__tablename__}`", doc))
    return table(("table", "a row is"), rows)


def codes() -> str:
    """Codes of ``reason`` and ``warnings``, with their line for people."""
    import worker.pipelines

    texts: dict[str, str] = {}
    for module in pkgutil.iter_modules(worker.pipelines.__path__, "worker.pipelines."):
        found: dict[str, str] = getattr(importlib.import_module(module.name), "TEXTS", {})
        texts.update({str(code): text for code, text in found.items()})
    return table(("code", "meaning"), ((f"`{code}`", text) for code, text in sorted(texts.items())))


def _plain_codes(texts: dict[str, str]) -> str:
    return table(("code", "meaning"), ((f"`{code}`", text) for code, text in sorted(texts.items())))


def state_codes() -> str:
    """Codes about studies and jobs that are no statement about an image."""
    from firstread.codes import STATE_CODES

    return _plain_codes(STATE_CODES)


def refusal_codes() -> str:
    """Codes of what could not become an instance."""
    from firstread.codes import REFUSAL_CODES

    return _plain_codes(REFUSAL_CODES)


def association_codes() -> str:
    """Codes of connections that were turned away."""
    from firstread.codes import ASSOCIATION_CODES

    return _plain_codes(ASSOCIATION_CODES)


def object_codes() -> str:
    """Codes of DICOM objects that could not be made."""
    from firstread.codes import OBJECT_CODES

    return _plain_codes(OBJECT_CODES)


def process_codes() -> str:
    """Codes about processes, packages and rows, in metrics and logs."""
    from firstread.codes import PROCESS_CODES

    return _plain_codes(PROCESS_CODES)


def alerts() -> str:
    """The alert rules."""
    import yaml

    rows = []
    for path in sorted((ROOT / "monitoring/prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    action = rule["annotations"]["action"]
                    rows.append((rule["alert"], rule["labels"]["severity"], action))
    return table(("alert", "severity", "what to do"), rows)


HEADLINES: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "bleed": (
        "four folds by patient, each measured with what the others taught",
        (
            ("slices, AUC", "out_of_fold/slices/any/auc"),
            ("patients, AUC", "out_of_fold/patients_at_flag/auc"),
            ("patients at the flag, sensitivity", "out_of_fold/patients_at_flag/sensitivity"),
            ("patients at the flag, specificity", "out_of_fold/patients_at_flag/specificity"),
            ("mask on positive slices, Dice", "out_of_fold/segmentation/dice_positive_slices"),
        ),
    ),
    "pneumonia": (
        "test part of the public set, patients apart, children; joined with the four-class model",
        (
            ("AUC", "joined_with_*/test_at_flag/children/auc"),
            ("accuracy at the flag", "joined_with_*/test_at_flag/children/accuracy"),
            ("sensitivity at the flag", "joined_with_*/test_at_flag/children/sensitivity"),
        ),
    ),
    "pneumonia4": (
        "test part of the public sets, patients apart",
        (
            ("accuracy of four classes", "test/four_classes/accuracy"),
            ("macro-F1", "test/four_classes/macro_f1"),
            ("recall of COVID-19", "test/by_class/covid19/recall"),
            ("adults without COVID-19 called COVID-19", "test/adults_without_covid/called_covid"),
        ),
    ),
    "lesion": (
        "test part of the public set, lesions apart",
        (
            ("outline, mean IoU", "test/outline/mean_iou"),
            ("outline, mean Dice", "test/outline/mean_dice"),
            ("outline, share of pictures with IoU below 0.65", "test/outline/share_below_065"),
            ("accuracy of the likeliest of melanoma, nevus, other", "test/accuracy"),
            ("balanced accuracy of the likeliest class", "test/balanced_accuracy"),
            ("accuracy at an even prior, a rule that the pipeline does not use", "test/accuracy_even_prior"),
            (
                "balanced accuracy at an even prior, a rule that the pipeline does not use",
                "test/balanced_accuracy_even_prior",
            ),
            ("melanoma, AUC", "test/melanoma_auc"),
            ("melanoma at the flag, recall", "test/flag_melanoma/recall"),
            ("melanoma at the flag, F1", "test/flag_melanoma/f1"),
        ),
    ),
}
"""Task -> on whom, and the figures of a card's ``metrics`` that the README repeats."""


def cards(*tasks: str) -> list[dict[str, Any]]:
    """The cards of the shipped packages of some tasks (none: of all)."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "models").glob("*/*/card.json")))
    return [card for card in found if not tasks or card["task"] in tasks]


def models() -> str:
    """The shipped packages with the figures of their cards."""
    rows = []
    for card in cards():
        on_whom, figures = HEADLINES[card["task"]]
        first = (f"`{card['name']}` {card['version']}", on_whom)
        for what, place in figures:
            found = figure(card["metrics"], place.split("/"))
            if found is not None:
                value = f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
                rows.append((*first, what, value, str(found["n"])))
                first = ("", "")
    return table(("model", "measured on", "figure", "value (95 % CI)", "N"), rows)


FLAGS: dict[str, tuple[str, str, str, str, str]] = {
    "bleed": (
        "Head CT",
        "heads without a bleed",
        "heads with one",
        "out_of_fold/patients_at_flag/sensitivity",
        "out_of_fold/patients_at_flag/specificity",
    ),
    "pneumonia": (
        "Chest film",
        "children's films without pneumonia",
        "films with it",
        "joined_with_*/test_at_flag/children/sensitivity",
        "joined_with_*/test_at_flag/children/specificity",
    ),
    "lesion": (
        "Skin lesion",
        "lesions that are no melanoma",
        "melanomas",
        "test/flag_melanoma/recall",
        "test/flag_melanoma/specificity",
    ),
}
"""Task -> what is flagged, those that should not be, those that should, and where the card has both figures."""

RARE = 0.05
"""Share of studies with the finding, for the question how many flags are right."""


def flag_words() -> str:
    """What a flag means, in numbers of a hundred, from the cards."""
    lines = []
    for card in cards():
        if card["task"] not in FLAGS:
            continue
        what, spared, meant, *places = FLAGS[card["task"]]
        found, left = (figure(card["metrics"], place.split("/")) for place in places)
        if found is None or left is None:
            continue
        false = {name: 1.0 - left[end] for name, end in (("value", "value"), ("low", "high"), ("high", "low"))}
        right = RARE * found["value"] / (RARE * found["value"] + (1 - RARE) * false["value"])
        lines.append(
            f"- {what}: of 100 {spared} about {hundred(false['value'])} are flagged too "
            f"({hundred(false['low'])} to {hundred(false['high'])}), and of 100 {meant} about "
            f"{hundred(found['value'])} are flagged ({hundred(found['low'])} to {hundred(found['high'])}). "
            f"Where {hundred(RARE)} of 100 have it, about {hundred(right)} of 100 flags are right."
        )
    return "\n".join(lines) + "\n"


def hundred(share: float) -> str:
    """A share as a number of a hundred."""
    return f"{100 * share:.0f}"


def figure(metrics: dict[str, Any], place: list[str]) -> dict[str, Any] | None:
    """None where a card of an earlier release has no such figure."""
    found = metrics
    for step in place:
        key = next((name for name in found if fnmatch.fnmatchcase(name, step)), None)
        if key is None:
            return None
        found = found[key]
    return found


def published_figures() -> str:
    """Published figures of dermoscopy beside ours."""
    from tools.docs.published import published

    return published()


def targets(*tasks: str) -> str:
    """What the models of some tasks were meant to reach, and what they reach."""
    from tools.docs.targets import targets as table_of_targets

    return table_of_targets(tasks)


EXPERIMENTS = ROOT / "docs" / "experiments"


def experiments(pipeline: str) -> str:
    """Tables that experiments wrote as JSON (title, budget, rows, shows), put into ``docs/experiments`` by hand."""
    from training.dermoscopy.answers import tables

    pages = []
    for path in sorted(EXPERIMENTS.glob(f"{pipeline}_*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if "minus_whole" in found:
            pages.append(re.sub(r"^# ", "### ", tables(found), flags=re.MULTILINE))
            continue
        page = _section(found["title"], found["budget"], found["rows"])
        pages.append(page + (f"\n{found['shows']}\n" if "shows" in found else ""))
    return "\n".join(pages) or "No table of an experiment belongs to this release.\n"


def _section(title: str, budget: str, rows: list[dict[str, Any]]) -> str:
    from training.evaluation.tables import markdown

    return markdown(title, budget, rows).replace("# ", "### ", 1)


def head_ct_scores() -> str:
    """What each part of the shipped head-CT networks is worth alone, as their cards say."""
    from training.head_ct.baselines import compared_rows

    budget = "as shipped; all that is fitted for a fold is fitted on the others"
    return "".join(
        _section(f"Out-of-fold predictions behind {card['name']} {card['version']}", budget,
                 compared_rows(card["metrics"]["out_of_fold"])) + "\n"
        for card in cards("bleed")
    )  # fmt: skip


def chest_adults() -> str:
    """What the shipped four-class models call adults without COVID, pooled by kind, as their cards say."""
    pages = []
    for card in cards("pneumonia4"):
        pooled = card["metrics"].get("test", {}).get("adults_without_covid", {}).get("pooled")
        if not pooled:
            continue
        rows = [
            (name, str(row["n"]), str(row["patients"]), _interval(row["called_covid"]),
             _interval(row["called_what_it_is"]) if "called_what_it_is" in row else "")
            for name, row in pooled.items()
        ]  # fmt: skip
        head = ("adults without COVID", "films", "patients", "called COVID-19", "called what they are")
        pages.append(f"`{card['name']}` {card['version']}:\n\n{table(head, rows)}")
    return "\n".join(pages) or "The cards of this release do not hold these rows.\n"


def _interval(row: dict[str, Any]) -> str:
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


BLOCKS: dict[str, Callable[[], str]] = {
    "models": models,
    "published_dermoscopy": published_figures,
    "targets_head_ct": lambda: targets("bleed"),
    "targets_chest": lambda: targets("pneumonia", "pneumonia4"),
    "targets_dermoscopy": lambda: targets("lesion"),
    "experiments_head_ct": lambda: head_ct_scores() + experiments("head_ct"),
    "experiments_dermoscopy": lambda: experiments("dermoscopy"),
    "chest_adults": chest_adults,
    "experiments_chest": lambda: experiments("chest"),
    "settings": settings,
    "metrics": metrics,
    "former_metrics": former_metrics,
    "commands": commands,
    "storage": storage,
    "syntaxes": syntaxes,
    "tables": tables,
    "codes": codes,
    "state_codes": state_codes,
    "refusal_codes": refusal_codes,
    "association_codes": association_codes,
    "object_codes": object_codes,
    "process_codes": process_codes,
    "alerts": alerts,
    "flag_words": flag_words,
}


def documents() -> list[Path]:
    """The documents that are written by hand, blocks apart."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def rendered(text: str) -> str:
    """A document with its blocks made anew."""
    return BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]]() + m[3], text)


def main() -> int:
    for path in documents():
        old = path.read_text(encoding="utf-8")
        new = rendered(old)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
