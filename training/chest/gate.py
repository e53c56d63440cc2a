"""Make the rule by which the chest pipeline's gate knows a chest film, and say how well such a rule does.

``firstread chest gate --data DIR --out FILE`` fits the rule of :mod:`worker.pipelines.chest_xray.likeness` on all that
is there; the file goes there as ``likeness.npz``. With ``--measure`` it fits a rule without each source of films and
one without each kind of other picture, and writes what each does with the one that it never saw (``docs/experiments``
holds the release's).
"""

from __future__ import annotations

from pathlib import Path

import click
import cv2

from training.chest.gate_examples import Examples, FilmSource, Size, others_of, sources_of
from training.chest.gate_fit import fit_rule, write_rule
from training.chest.gate_table import CHANGED_MOST, film_rows, judged_by, none_rows
from training.evaluation.report import write_table
from training.options import EXISTING_FOLDER
from worker.pipelines.chest_xray.likeness import Rule

FILMS_TITLE = "The gate by pixels: films of a source that the rule was not fitted on"
NONE_TITLE = "The gate by pixels: what is no chest film"


@click.command("gate")
@click.option("--data", type=EXISTING_FOLDER, required=True, help="Folder with chest_xray, head_ct and dermoscopy.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File of the rule (npz). With --measure: the tables, without suffix.",
)
@click.option("--measure", is_flag=True, help="Fit without each source and kind in turn, and write tables of those.")
def gate(data: Path, out: Path, measure: bool) -> None:
    """Fit the rule by which the pipeline knows a chest film, or measure such rules on sources that they never saw.

    It learns from the films of the collections, as they are and turned, cut, framed, crossed by tubes or with one white
    lung; and from pictures that are no chest film: head CT slices, skin pictures, drawn parts of the body, pages,
    charts and scenes, parts of films, and films that lie, stand upside down or are inverted.
    """
    cv2.setNumThreads(1)
    size = Size()
    sources, others = sources_of(data, size), others_of(data, size)
    rule = fit_rule(list(sources.values()), others)
    if not measure:
        write_rule(rule, out)
        n_films, n_others = (
            sum(map(len, part)) for part in ([source.films for source in sources.values()], others.values())
        )
        click.echo(f"{n_films} films, {n_others} other pictures: {out}")
        return
    budget = (
        f"{size.films} films of each source as they are and changed, {size.drawn} drawn pictures of each kind, "
        f"{len(sources)} rules, each fitted without the source that it judges; at most {CHANGED_MOST} films of a "
        "source are changed"
    )
    rows = film_rows(data, {name: judged_by(by) for name, by in left_out_rules(sources, others).items()})
    click.echo(write_table(out.parent, out.stem, FILMS_TITLE, budget, rows).read_text(encoding="utf-8"))
    without = {
        kind: fit_rule(list(sources.values()), {name: found for name, found in others.items() if name != kind})
        for kind in others
    }
    budget = "the rule of all sources, on pictures that it was not fitted on; and one fitted without the kind"
    table = write_table(out.parent, f"{out.stem}_none", NONE_TITLE, budget, none_rows(data, rule, without))
    click.echo(table.read_text(encoding="utf-8"))


def left_out_rules(sources: dict[str, FilmSource], others: dict[str, Examples]) -> dict[str, Rule]:
    """For each source the rule that is fitted on the others."""
    return {name: fit_rule([source for other, source in sources.items() if other != name], others) for name in sources}
