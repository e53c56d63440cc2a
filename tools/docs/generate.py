"""Writes the tables of the documents that the code knows best; ``make docs`` runs it, and a test compares.

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` of a document; the text around it is written
by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from tests.bench.parts import PARTS
from tools.docs import histories, hl7, simulation
from tools.docs.endurance import fuzzing, soak
from tools.docs.experiments import chest_adults, experiments, head_ct_scores
from tools.docs.figures import ROOT, flag_words, models, table
from tools.docs.licences import decided_licences, licences
from tools.docs.performance import bench_part, queries, query_databases
from tools.docs.published import published
from tools.docs.reliability import grid
from tools.docs.security import units
from tools.docs.targets import targets

BLOCK = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


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
    from firstread.codes import IMAGE_CODES

    return _plain_codes(IMAGE_CODES)


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


BLOCKS: dict[str, Callable[[], str]] = {
    "models": models,
    "published_dermoscopy": published,
    "targets_head_ct": lambda: targets(("bleed",)),
    "targets_chest": lambda: targets(("pneumonia", "pneumonia4")),
    "targets_dermoscopy": lambda: targets(("lesion",)),
    "experiments_head_ct": lambda: head_ct_scores() + experiments("head_ct"),
    "experiments_dermoscopy": lambda: experiments("dermoscopy"),
    "experiments_engine": lambda: experiments("engine"),
    "chest_adults": chest_adults,
    "experiments_chest": lambda: experiments("chest"),
    **{f"bench_{part.name}": partial(bench_part, part.name) for part in PARTS if not part.own_file},
    "queries": queries,
    "query_databases": query_databases,
    "simulation_assumptions": simulation.assumptions,
    "simulation_waits": simulation.waits,
    "simulation_settings": simulation.settings,
    "licences": licences,
    "decided_licences": decided_licences,
    "settings": settings,
    "metrics": metrics,
    "former_metrics": former_metrics,
    "commands": commands,
    "storage": storage,
    "hl7_fields": hl7.fields,
    "hl7_example": hl7.example,
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
    "units": units,
    "simulation_breaks": histories.breaks,
    "grid": grid,
    "fuzzing": fuzzing,
    "soak": soak,
}


def documents() -> list[Path]:
    """The documents that are written by hand, blocks apart."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def rendered(text: str) -> str:
    """A document with its blocks made anew."""
    return BLOCK.sub(lambda m: m[1] + BLOCKS[m[2]]() + m[3], text)


def main() -> int:
    """Write what differs."""
    for path in documents():
        old = path.read_text(encoding="utf-8")
        new = rendered(old)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
