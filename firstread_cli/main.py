"""The command ``firstread``: a table of commands, each loaded only when it is called."""

from __future__ import annotations

import errno
import sys
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem
from pydantic import ValidationError

from firstread.text import clean

REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT}
"""What a system says of a folder that takes no files, a path through a file, and a full disk; else it is our fault."""

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("firstread_cli.services:up", "Run everything here: broker, listener, worker, metrics."),
    "demo": ("firstread_cli.demo.command:demo", "Show the whole path on real pictures, in a temporary home."),
    "listen": ("firstread_cli.services:listen", "Run the DICOM listener and the inbox."),
    "work": ("firstread_cli.services:work", "Run a worker under its supervisor."),
    "web": ("firstread_cli.web:web", "Serve the worklist page; accounts for it."),
    "migrate": ("firstread_cli.services:migrate", "Bring the database to this version's schema."),
    "doctor": (
        "firstread_cli.doctor.command:doctor",
        "Check settings, ports, database, broker, models, disk and the path.",
    ),
    "send": ("firstread_cli.send:send", "Send files or folders by C-STORE."),
    "results": ("firstread_cli.listings:results", "List results."),
    "flags": ("firstread_cli.listings:flags", "List flagged studies; acknowledge them."),
    "study": ("firstread_cli.study:study", "Show everything known of one study."),
    "report": ("firstread_cli.study:report", "Write one study as an HTML page."),
    "retry": ("firstread_cli.study:retry", "Score a study again."),
    "verdict": ("firstread_cli.outcomes:verdict", "Say what you think of a result."),
    "import-truth": ("firstread_cli.outcomes:import_truth", "Import confirmed diagnoses."),
    "performance": ("firstread_cli.outcomes:performance", "Agreement with verdicts, by pipeline, scanner and month."),
    "deliver": ("firstread_cli.outcomes:deliver", "Run deliveries, escalation, retention, drift and heartbeat."),
    "deliveries": ("firstread_cli.outcomes:deliveries", "List deliveries; try again, or give up."),
    "golive": ("firstread_cli.golive:golive", "What a silent site would have sent; end the silence."),
    "objects": ("firstread_cli.outcomes:objects", "Make and list the DICOM objects of a study's results."),
    "export": ("firstread_cli.outcomes:export", "Write judged studies without identity, for training."),
    "clean": ("firstread_cli.outcomes:clean", "Apply the retention rules now."),
    "drift": ("firstread_cli.outcomes:drift", "List drift of scores, intensity and thickness."),
    "audit": ("firstread_cli.outcomes:audit", "List who did what."),
    "models": ("firstread_cli.models:models", "List, check, activate, export and import model packages."),
    "prepare": ("firstread_cli.training:prepare", "Turn a data set into training shards, with a report."),
    "train": ("firstread_cli.training:train", "Train a recipe."),
    "evaluate": ("firstread_cli.training:evaluate", "Evaluate a package on labelled data."),
    "maps": ("training.maps:maps", "Lay class maps of packages over a picture or a scan."),
    "head": ("firstread_cli.experiments:head", "Head CT experiments: the score of a patient, warnings by pixels."),
    "dermoscopy": ("firstread_cli.experiments:dermoscopy", "Dermoscopy experiments."),
    "chest": ("firstread_cli.experiments:chest", "Chest X-ray experiments: comparisons, damaged films, class maps."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when called; its help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names and help of commands without importing them: a shell asks at every press of the Tab key."""
        completions = [CompletionItem(n, help=text) for n, (_, text) in COMMANDS.items() if n.startswith(incomplete)]
        return completions if not incomplete.startswith("-") else super().shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names and help, without an import."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="firstread", message="%(version)s")
def cli() -> None:
    """Firstread reads imaging studies before a person does. Decision support, not a medical device."""


def settings_errors(error: ValidationError) -> list[str]:
    """One line a wrong setting: its name, where it was set, and what is wrong; never a value."""
    from firstread.settings import ENV_PREFIX, Settings, config_path
    from firstread.settings.sources import is_set
    from firstread.settings.unknown_names import nearest

    lines = []
    for item in error.errors(include_input=False, include_url=False):
        first, *rest = [str(part) for part in item["loc"]] or ["settings"]
        in_file = is_set(first, ENV_PREFIX) is None and first != "settings"
        name = f"{first} in {config_path()}" if in_file else f"{ENV_PREFIX}{first.upper()}"
        if rest:
            name += f" ({'.'.join(rest)})"
        what = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            meant = nearest(first.upper(), (known.upper() for known in Settings.model_fields))
            what = "no such setting" + (f"; did you mean {meant.lower()}?" if meant else "")
        lines.append(f"{name}: {what}")
    return lines


def main(argv: list[str] | None = None) -> Any:
    """Entry point. A wrong setting, a known error, or a file that the system refuses ends in one clear line."""
    from firstread.errors import FirstreadError
    from firstread.logs import keep_secrets_out_of_tracebacks, known_secrets, silence_libraries
    from firstread.settings.secrets import without

    silence_libraries()
    keep_secrets_out_of_tracebacks()
    try:
        return cli(args=argv, prog_name="firstread")
    except ValidationError as error:
        lines, code = settings_errors(error), 2
    except FirstreadError as error:
        lines, code = str(error).splitlines() or [type(error).__name__], error.exit_code
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        lines, code = [f"{error.filename or 'a file'}: {error.strerror}"], 1
    secrets = known_secrets()
    for line in lines:
        click.echo(f"firstread: {clean(without(secrets, line))}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
