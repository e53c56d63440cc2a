"""Which objects of a study are frontal chest films, by what their headers say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset

from firstread.dicom.datasets import PARSE_ERRORS, number, text
from worker.pipelines.base import Instance, Selection, Series, SeriesNote, Study
from worker.pipelines.chest_maps import Part
from worker.pipelines.film_pixels import Turn
from worker.pipelines.reasons import Caution, Reason

MODALITIES: Final = frozenset({"CR", "DX", "DR", "RG", "OT", "SC"})
RADIOGRAPHY: Final = frozenset({"CR", "DX", "DR", "RG"})
CAPTURES: Final = frozenset(
    f"1.2.840.10008.5.1.4.1.1.7{part}" for part in ("", ".1", ".2", ".3", ".4")
)  # fmt: skip
FOR_PROCESSING: Final = "1.2.840.10008.5.1.4.1.1.1.1.1"
MIN_SIDE_PX: Final = 112
MAX_FRAMES: Final = 4

CHEST_WORDS: Final = ("CHEST", "THORAX", "TORAX", "LUNG", "PULMON", "CXR", "THX")
OTHER_WORDS: Final = (
    "ABDOMEN", "ANKLE", "ARM", "BREAST", "CALCANEUS", "CERVICAL", "CLAVICLE", "COCCYX", "CSPINE", "ELBOW", "EXTREMITY",
    "FEMUR", "FIBULA", "FINGER", "FOOT", "FOREARM", "HAND", "HEAD", "HIP", "HUMERUS", "JAW", "KNEE", "LEG", "LSPINE",
    "LUMBAR", "MANDIBLE", "NECK", "ORBIT", "PELVIS", "SACRUM", "SCAPULA", "SHOULDER", "SINUS", "SKULL", "SPINE",
    "SSPINE", "TEETH", "THIGH", "THUMB", "TIBIA", "TOE", "TOOTH", "WHOLEBODY", "WRIST",
)  # fmt: skip
LATERAL_VIEWS: Final = frozenset({"LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "ML", "LM", "LLO", "RLO"})
LATERAL_WORDS: Final = ("LATERAL", "SEITLICH", "LAT")
_RANK: Final = {"PA": 0, "AP": 1}


@dataclass
class Film:
    """One frame that may be a frontal chest film; the gate fills in the pixels.

    Attributes
    ----------
    frame : int
        0 for a single-frame object, else counted from 1.
    grey : ndarray of float32, shape (H, W), or None
        Display values, upright, bright for dense.
    likeness : float
        How much the pixels look like a frontal chest (:mod:`worker.pipelines.chest_likeness`).
    parts : dict of Part
        By package, the part of the film that its network sees; set as the film is preprocessed.
    """

    instance: Instance
    frame: int
    view: str
    cautions: list[str] = field(default_factory=list)
    grey: np.ndarray | None = None
    turn: Turn = field(default_factory=Turn)
    likeness: float = 0.0
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def raw(self) -> bool:
        """Whether it is a detector's image, not processed for people."""
        return Caution.FOR_PROCESSING in self.cautions

    @property
    def rank(self) -> tuple[Any, ...]:
        """Smaller is better: processed for people, posterior-anterior, then by number."""
        order = number(self.instance.ds, "InstanceNumber") or 0.0
        return (self.raw, _RANK.get(self.view, 2), order, self.frame, self.instance.SOPInstanceUID)


def select(study: Study) -> Selection:
    """All candidate films of the study as one series, in the order of :func:`in_turn`; a note on every series.

    Views of one examination often come in series of their own: an opacity on the second one must not be missed because
    the first is normal.
    """
    groups: dict[str, list[Instance]] = defaultdict(list)
    for instance in study.instances:
        groups[instance.SeriesInstanceUID].append(instance)
    pool: list[list[Film]] = []
    notes: list[SeriesNote] = []
    for uid, instances in groups.items():
        films: list[Film] = []
        reasons: list[str] = []
        for instance in instances:
            candidates, reason = films_of(instance, study.forced)
            films += candidates
            reasons += [] if reason is None else [str(reason)]
        if films:
            pool.append(films)
            reasons = []
        notes.append(SeriesNote(uid, bool(films), tuple(dict.fromkeys(reasons)), len(instances)))
    films = in_turn(pool)
    if not films:
        return Selection((), tuple(notes))
    used = list({film.instance.key: film.instance for film in films}.values())
    return Selection((Series(films[0].instance.SeriesInstanceUID, used, pixels=films),), tuple(notes))


def in_turn(groups: Sequence[Sequence[Film]]) -> list[Film]:
    """Films of several series, the best first: each series' best, then each one's second; raw ones after all others."""
    turns = [(turn, film) for films in groups for turn, film in enumerate(sorted(films, key=lambda film: film.rank))]
    turns.sort(key=lambda pair: (pair[1].raw, pair[0], pair[1].rank))
    return [film for _, film in turns]


def films_of(instance: Instance, forced: bool) -> tuple[list[Film], Reason | None]:
    """Candidate films of one object, or why there is none. What a person asked for is only refused for sure signs."""
    ds = instance.ds
    modality = text(ds, "Modality", 16).upper()
    capture = instance.SOPClassUID in CAPTURES
    if number(ds, "Rows") is None or number(ds, "Columns") is None:
        return [], Reason.NO_IMAGES
    if not forced and modality not in MODALITIES and not (capture and not modality):
        return [], Reason.NOT_A_RADIOGRAPH
    if min(number(ds, "Rows") or 0.0, number(ds, "Columns") or 0.0) < MIN_SIDE_PX:
        return [], Reason.TOO_SMALL
    if is_lateral(ds):
        return [], Reason.LATERAL_VIEW
    cautions: list[str] = []
    if names_other_part(ds):
        if not forced:
            return [], Reason.NOT_A_CHEST
        cautions.append(str(Caution.CHEST_UNCERTAIN))
    if capture and modality in RADIOGRAPHY:
        cautions.append(str(Caution.SECONDARY_CAPTURE))
    if instance.SOPClassUID == FOR_PROCESSING or text(ds, "PresentationIntentType", 16).upper() == "FOR PROCESSING":
        cautions.append(str(Caution.FOR_PROCESSING))
    count = int(number(ds, "NumberOfFrames") or 1)
    frames = range(1, min(count, MAX_FRAMES) + 1) if count > 1 else (0,)
    view = text(ds, "ViewPosition", 16).upper()
    return [Film(instance, frame, view, list(cautions)) for frame in frames], None


def names_other_part(ds: Dataset) -> bool:
    """Whether the header names a part of the body that is not the chest: Body Part Examined, else descriptions."""
    part = text(ds, "BodyPartExamined", 64).upper()
    if part:
        return _other(part)
    words = " ".join(text(ds, keyword, 64) for keyword in ("ProtocolName", "SeriesDescription", "StudyDescription"))
    return _other(words.upper())


def _other(words: str) -> bool:
    if any(word in words for word in CHEST_WORDS):
        return False
    compact = words.replace(" ", "")
    named = set(words.replace("_", " ").replace("/", " ").split())
    return any(word in named or (len(word) > 4 and word in compact) for word in OTHER_WORDS)


def is_lateral(ds: Dataset) -> bool:
    """Whether View Position, View Code, Patient Orientation or a description says that the film is a lateral one."""
    if text(ds, "ViewPosition", 16).upper().replace(" ", "") in LATERAL_VIEWS:
        return True
    if text(ds, "PatientOrientation", 16).upper()[:1] in ("A", "P"):
        return True
    if text(ds, "ViewPosition", 16).upper()[:2] in ("PA", "AP"):
        return False
    try:
        codes = ds.get("ViewCodeSequence") or []
        meanings = " ".join(text(item, "CodeMeaning", 64) for item in codes)
    except PARSE_ERRORS:
        meanings = ""
    words = f"{meanings} {text(ds, 'SeriesDescription', 64)} {text(ds, 'AcquisitionDeviceProcessingDescription', 64)}"
    named = set(re.sub(r"[^A-Z]+", " ", words.upper()).split())
    frontal = named & {"PA", "AP", "FRONTAL"}
    return not frontal and bool(named & set(LATERAL_WORDS))
