"""Do the pixels show a frontal chest? The candidates of a study are decoded here, once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from firstread.dicom.modality import modality_of
from firstread.dicom.pixels.reading import UnreadablePixels
from firstread.dicom.values import text
from firstread.storage.faults import raise_fault
from worker.pipelines.base import Gate, Series, StudyImages
from worker.pipelines.chest_xray.film import ColourImage, Film, FilmCandidate, read_film
from worker.pipelines.chest_xray.likeness import judge
from worker.pipelines.chest_xray.selection import RADIOGRAPHY
from worker.pipelines.reasons import Caution, Reason, merge_codes
from worker.pipelines.unread import cause_of, lost_beside, sentence

MOST_FILMS: Final = 8
MOST_JUDGED: Final = 24
"""Candidates that are decoded at most: a study can be a hundred films of hands."""


@dataclass(frozen=True)
class _Refusal:
    """A candidate that cannot be scored, and why; ``fault`` says in words what kept it from being read."""

    candidate: FilmCandidate
    reason: Reason
    fault: str = ""


def gate(study: StudyImages, series: Series[tuple[FilmCandidate, ...]]) -> Gate[tuple[Film, ...]]:
    """Decode the candidates, the best first, and keep those that show a frontal chest (at most :data:`MOST_FILMS`).

    A film that the pixels leave in doubt is scored with the warning ``chest_uncertain``; what is surely no chest is
    refused, also where a person asked for the pipeline. A film stored inverted is turned round, with the warning
    ``polarity_corrected``. Films that were not looked at, or cannot be read, are counted and warned of.
    """
    candidates = series.images
    films: list[Film] = []
    refusals: list[_Refusal] = []
    for candidate in candidates[:MOST_JUDGED]:
        film = _judge(candidate, study.forced)
        if isinstance(film, Film):
            films.append(film)
        else:
            refusals.append(film)
        if len(films) == MOST_FILMS:
            break
    lost = lost_beside(study, (candidate.instance for candidate in candidates))
    causes = [refusal.fault for refusal in refusals if refusal.reason == Reason.UNREADABLE_PIXEL_DATA] + lost
    n_judged = len(films) + len(refusals)
    unread = sentence(n_judged + len(lost), "films", causes) if causes else ""
    if not films:
        return Gate(tuple(merge_codes(refusal.reason for refusal in refusals)), unread=unread)
    n_unseen = len(candidates) - n_judged
    warnings = [code for film in films for code in (*film.cautions, *film.instance.warnings)]
    warnings += [Caution.PICTURES_LEFT_OUT] if n_unseen or causes else []
    return Gate(
        (),
        tuple(merge_codes(warnings)),
        unread,
        tuple(films),
        {"n_films": len(films), "films_left_out": n_unseen + len(causes)},
        frozenset(film.instance.SeriesInstanceUID for film in films),
        _unused_series(films, refusals),
    )


def _unused_series(films: Sequence[Film], refusals: Sequence[_Refusal]) -> dict[str, tuple[str, ...]]:
    """Reasons by series, of those of which no film passed."""
    used = {film.instance.SeriesInstanceUID for film in films}
    reasons: dict[str, list[str]] = defaultdict(list)
    for refusal in refusals:
        uid = refusal.candidate.instance.SeriesInstanceUID
        if uid not in used:
            reasons[uid].append(refusal.reason)
    return {uid: tuple(merge_codes(codes)) for uid, codes in reasons.items()}


def _judge(candidate: FilmCandidate, forced: bool) -> Film | _Refusal:
    """The film, or why it cannot be scored."""
    instance, cautions = candidate.instance, list(candidate.cautions)
    try:
        grey, turn = read_film(instance.path, instance.ds, max(0, candidate.frame - 1), cautions, instance.content)
    except ColourImage:
        is_film = modality_of(text(instance.ds, "Modality", 16), instance.SOPClassUID) in RADIOGRAPHY
        # Of no kind that says what it shows: no film, and no photograph of skin that anybody asked for.
        reason = Reason.UNSUPPORTED_PHOTOMETRIC if is_film or forced else Reason.NOT_A_SKIN_PHOTOGRAPH
        return _Refusal(candidate, reason)
    except (UnreadablePixels, OSError) as error:
        raise_fault(error)
        return _Refusal(candidate, Reason.UNREADABLE_PIXEL_DATA, cause_of(error))
    judgement = judge(grey)
    if not judgement.possible:
        return _Refusal(candidate, Reason.NOT_A_CHEST)
    if judgement.inverted:
        grey = grey.max() + grey.min() - grey
        cautions.append(Caution.POLARITY_CORRECTED)
    if not judgement.certain and Caution.CHEST_UNCERTAIN not in cautions:
        cautions.append(Caution.CHEST_UNCERTAIN)
    return Film(instance, candidate.frame, candidate.view, grey, turn, judgement.log_odds, tuple(cautions))
