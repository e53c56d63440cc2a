"""Are the pixels a frontal chest film? Decodes the candidates of a series once, and asks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from firstread.dicom.datasets import text
from firstread.dicom.modality import modality_of
from firstread.dicom.pixels.reading import UnreadablePixels
from worker.pipelines.base import Gate, Series, Study
from worker.pipelines.chest_xray.film import ColourImage, read_film
from worker.pipelines.chest_xray.likeness import CERTAIN, POSSIBLE, likeness
from worker.pipelines.chest_xray.selection import RADIOGRAPHY, Film
from worker.pipelines.reasons import Caution, Reason
from worker.pipelines.unread import cause_of, lost_beside, sentence

MOST_FILMS: Final = 8
MOST_JUDGED: Final = 24
"""Candidates that are decoded at most: a study can be a hundred films of hands."""

INVERTED_CERTAIN: Final = 3.0
"""Log odds that the negative of a film must reach before it is taken for the film."""


def gate(study: Study, series: Series) -> Gate:
    """Decode the candidates, the best first, and keep those that show a frontal chest (at most :data:`MOST_FILMS`).

    A film that the pixels leave in doubt is refused, and where a person asked for the pipeline scored with the warning
    ``chest_uncertain`` unless the header doubts it too; what is surely no chest is refused either way. A film stored
    inverted is turned round. Films that were not looked at, or cannot be read, are counted and warned of.
    """
    passed: list[Film] = []
    refused: list[tuple[Film, str]] = []
    for film in series.pixels[:MOST_JUDGED]:
        reason = _judge(film, study.forced)
        if reason is None:
            passed.append(film)
        else:
            refused.append((film, str(reason)))
        if len(passed) == MOST_FILMS:
            break
    lost = lost_beside(study, (film.instance for film in series.pixels))
    causes = [film.fault for film, reason in refused if reason == Reason.UNREADABLE_PIXEL_DATA] + lost
    detail = sentence(len(passed) + len(refused) + len(lost), "films", causes) if causes else ""
    if not passed:
        return Gate(tuple(dict.fromkeys(reason for _, reason in refused)), (), detail)
    unseen = series.pixels[len(passed) + len(refused) :]
    series.pixels = passed
    series.instances = list({film.instance.key: film.instance for film in passed}.values())
    series.refused = _unused(passed, refused)
    series.details |= {"n_films": len(passed), "films_left_out": len(unseen) + len(causes)}
    warnings = [code for film in passed for code in (*film.cautions, *film.instance.warnings)]
    warnings += [str(Caution.PICTURES_LEFT_OUT)] if unseen or causes else []
    return Gate((), tuple(dict.fromkeys(warnings)), detail)


def _unused(passed: Sequence[Film], refused: Sequence[tuple[Film, str]]) -> dict[str, tuple[str, ...]]:
    """Reasons by series, of those of which no film passed."""
    used = {film.instance.SeriesInstanceUID for film in passed}
    found: dict[str, tuple[str, ...]] = {}
    for film, reason in refused:
        uid = film.instance.SeriesInstanceUID
        if uid not in used:
            found[uid] = tuple(dict.fromkeys((*found.get(uid, ()), reason)))
    return found


def _judge(film: Film, forced: bool) -> Reason | None:
    """Fill in the film's pixels, or say why it cannot be scored."""
    try:
        film.grey, film.turn = read_film(film.instance.path, film.instance.ds, max(0, film.frame - 1), film.cautions)
    except ColourImage:
        ds = film.instance.ds
        is_film = modality_of(text(ds, "Modality", 16), film.instance.SOPClassUID) in RADIOGRAPHY
        # Of no kind that says what it shows: no film, and no photograph of skin that anybody asked for.
        return Reason.UNSUPPORTED_PHOTOMETRIC if is_film or forced else Reason.NOT_A_SKIN_PHOTOGRAPH
    except (UnreadablePixels, OSError) as error:
        film.fault = cause_of(error)
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
