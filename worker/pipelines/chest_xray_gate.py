"""Are the pixels a frontal chest film? Decodes the candidates of a series once, and asks them."""

from __future__ import annotations

from typing import Final

from firstread.dicom.pixels import UnreadablePixels
from worker.pipelines.base import Gate, Series, Study
from worker.pipelines.chest_likeness import CERTAIN, POSSIBLE, likeness
from worker.pipelines.chest_xray_selection import Film
from worker.pipelines.film_pixels import ColourImage, read_film
from worker.pipelines.reasons import Caution, Reason

MOST_FILMS: Final = 4
INVERTED_CERTAIN: Final = 3.0
"""Log odds that the negative of a film must reach before it is taken for the film."""


def gate(study: Study, series: Series) -> Gate:
    """Decode the candidates, the best first, and keep those that show a frontal chest (at most four).

    A film that the pixels leave in doubt is refused, and where a person asked for the pipeline scored with the warning
    ``chest_uncertain`` unless the header doubts it too; what is surely no chest is refused either way. A film stored
    inverted is turned round.
    """
    passed: list[Film] = []
    reasons: list[str] = []
    for film in series.pixels:
        reason = _judge(film, study.forced)
        if reason is None:
            passed.append(film)
        else:
            reasons.append(str(reason))
        if len(passed) == MOST_FILMS:
            break
    if not passed:
        return Gate(tuple(dict.fromkeys(reasons)))
    series.pixels = passed
    series.instances = list({film.instance.key: film.instance for film in passed}.values())
    series.details |= {
        "n_films": len(passed),
        "chest_likeness": round(passed[0].likeness, 2),
        "rows": int(passed[0].grey.shape[0]) if passed[0].grey is not None else 0,
        "orientation_known": passed[0].turn.known,
    }
    warnings = [code for film in passed for code in (*film.cautions, *film.instance.warnings)]
    return Gate((), tuple(dict.fromkeys(warnings)))


def _judge(film: Film, forced: bool) -> Reason | None:
    """Fill in the film's pixels, or say why it cannot be scored."""
    try:
        film.grey, film.turn = read_film(film.instance.path, film.instance.ds, max(0, film.frame - 1))
    except ColourImage:
        return Reason.UNSUPPORTED_PHOTOMETRIC
    except (UnreadablePixels, OSError):
        return Reason.UNREADABLE_PIXEL_DATA
    film.likeness = likeness(film.grey)
    if film.likeness >= CERTAIN:
        return None
    inverse = likeness(-film.grey)
    if inverse >= INVERTED_CERTAIN:
        film.grey = film.grey.max() + film.grey.min() - film.grey
        film.likeness = inverse
        film.cautions.append(str(Caution.POLARITY_CORRECTED))
        return None
    doubted = str(Caution.CHEST_UNCERTAIN) in film.cautions
    if forced and film.likeness >= POSSIBLE and not doubted:
        film.cautions.append(str(Caution.CHEST_UNCERTAIN))
        return None
    film.grey = None
    return Reason.NOT_A_CHEST
