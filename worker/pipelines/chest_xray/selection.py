"""Which objects of a study are frontal chest films, by what their headers say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from firstread.dicom.modality import CAPTURES, modality_of
from firstread.dicom.values import number, text
from worker.pipelines.base import Selection, Series, SeriesNote, StoredInstance, StudyImages
from worker.pipelines.chest_xray.film import FilmCandidate
from worker.pipelines.chest_xray.header import is_lateral, other_part, other_part_described
from worker.pipelines.reasons import Caution, Reason

MODALITIES: Final = frozenset({"CR", "DX", "DR", "RG", "OT", "SC"})
RADIOGRAPHY: Final = frozenset({"CR", "DX", "DR", "RG"})
FOR_PROCESSING: Final = "1.2.840.10008.5.1.4.1.1.1.1.1"
MIN_SIDE_PX: Final = 112
MAX_FRAMES: Final = 4


def select(study: StudyImages) -> Selection[tuple[FilmCandidate, ...]]:
    """All candidate films of the study as one series, in the order of :func:`by_turns`; a note on every series.

    Views of one examination often come in series of their own: an opacity on the second one must not be missed because
    the first is normal.
    """
    groups: dict[str, list[StoredInstance]] = defaultdict(list)
    for instance in study.instances:
        groups[instance.SeriesInstanceUID].append(instance)
    pool: list[list[FilmCandidate]] = []
    notes: list[SeriesNote] = []
    for uid, instances in groups.items():
        films: list[FilmCandidate] = []
        reasons: list[str] = []
        for instance in instances:
            candidates, reason = films_of(instance, study.forced)
            films += candidates
            reasons += [] if reason is None else [str(reason)]
        if films:
            pool.append(films)
            reasons = []
        notes.append(SeriesNote(uid, bool(films), tuple(dict.fromkeys(reasons)), len(instances)))
    films = by_turns(pool)
    if not films:
        return Selection((), tuple(notes))
    used = tuple({film.instance.key: film.instance for film in films}.values())
    return Selection((Series(films[0].instance.SeriesInstanceUID, used, tuple(films)),), tuple(notes))


def by_turns(groups: Sequence[Sequence[FilmCandidate]]) -> list[FilmCandidate]:
    """Films of several series, the best first: each series' best, then each one's second; raw ones after all others."""
    turns = [(turn, film) for films in groups for turn, film in enumerate(sorted(films, key=lambda film: film.rank))]
    turns.sort(key=lambda pair: (pair[1].raw, pair[0], pair[1].rank))
    return [film for _, film in turns]


def films_of(instance: StoredInstance, forced: bool) -> tuple[list[FilmCandidate], Reason | None]:
    """Candidate films of one object, or why there is none.

    What a person asked for is only refused for sure signs, as a body part that the header names in so many words is.
    """
    ds = instance.ds
    modality = modality_of(text(ds, "Modality", 16), instance.SOPClassUID)
    capture = instance.SOPClassUID in CAPTURES
    if number(ds, "Rows") is None or number(ds, "Columns") is None:
        return [], Reason.NO_IMAGES
    if not forced and modality not in MODALITIES:
        return [], Reason.NOT_A_RADIOGRAPH
    if min(number(ds, "Rows") or 0.0, number(ds, "Columns") or 0.0) < MIN_SIDE_PX:
        return [], Reason.TOO_SMALL
    if is_lateral(ds):
        return [], Reason.LATERAL_VIEW
    cautions: list[str] = []
    if other_part(ds) or (other_part_described(ds) and not forced):
        return [], Reason.NOT_A_CHEST
    if other_part_described(ds):
        cautions.append(str(Caution.CHEST_UNCERTAIN))
    if capture and modality in RADIOGRAPHY:
        cautions.append(str(Caution.SECONDARY_CAPTURE))
    if instance.SOPClassUID == FOR_PROCESSING or text(ds, "PresentationIntentType", 16).upper() == "FOR PROCESSING":
        cautions.append(str(Caution.FOR_PROCESSING))
    count = int(number(ds, "NumberOfFrames") or 1)
    frames = range(1, min(count, MAX_FRAMES) + 1) if count > 1 else (0,)
    view = text(ds, "ViewPosition", 16).upper()
    return [FilmCandidate(instance, frame, view, tuple(cautions)) for frame in frames], None
