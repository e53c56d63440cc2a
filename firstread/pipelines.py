"""One description of each pipeline, and the questions that the rest of Firstread asks of them.

Every table of pipelines or findings is read from here. What only the worker knows of a pipeline (its five functions)
is found by its name in :mod:`worker.pipelines.registry`, and what only training knows in :mod:`training.pipelines`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

OWN_SCHEME = "99FIRSTREAD"
"""Coding Scheme Designator of our own codes, for what no standard names without doubt."""

NOTICE = "Firstread result, not for diagnosis. A study that is not flagged is not thereby normal."
"""Below every message and report."""

DECISION_SUPPORT = "Decision support, not a medical device."
"""Beside ``NOTICE`` where other programs show a result."""

NOT_FOR_DIAGNOSIS = "not for diagnosis"
"""In the title of every series that goes to an archive."""

PICTURE_NOTICE = "AI result, not for diagnosis"
"""Burned into every evidence picture."""


class Concept(NamedTuple):
    """A coded concept (PS3.3 8.8), plain so that nobody needs a dictionary of codes to read a description."""

    CodeValue: str
    CodingSchemeDesignator: str
    CodeMeaning: str


@dataclass(frozen=True)
class FindingTerm:
    """A finding of a pipeline: one that gets a probability, or (:class:`MeasureTerm`) one that is measured.

    Attributes
    ----------
    name : str
        As in SQL; no two pipelines have a finding of one name.
    meaning : str
        In plain words; empty: the name with spaces.
    concept : Concept or None
        What is found; None for a code of our own.
    listed : bool
        Whether ``firstread results`` shows it unless asked for everything.
    """

    name: str
    meaning: str = ""
    concept: Concept | None = None
    listed: bool = False


@dataclass(frozen=True)
class MeasureTerm(FindingTerm):
    """A finding with a value and a unit.

    Attributes
    ----------
    quantity : Concept or None
        What is measured of it; None for a code of our own.
    from_outline : bool
        Whether the outline is what it was measured on.
    """

    quantity: Concept | None = None
    from_outline: bool = False


@dataclass(frozen=True)
class OutlineTerm:
    """What a pipeline outlines, for DICOM Segmentations.

    Attributes
    ----------
    in_space : bool
        Whether the outline lies on slices whose place and thickness must be known.
    """

    label: str
    type_concept: Concept
    region: Concept
    in_space: bool = False


@dataclass(frozen=True)
class PictureClass:
    """What JPEG and PNG files from the pipeline's inbox folder become."""

    SOPClassUID: str
    Modality: str


@dataclass(frozen=True)
class Pipeline:
    """All that more than one part of Firstread knows of a pipeline.

    Attributes
    ----------
    name : str
        As in SQL, settings and the inbox; the worker's folder is ``worker/pipelines/<name>/``.
    priority : int
        Of its studies, 0 first and 9 last.
    modalities : frozenset of str
        Values of Modality whose studies it wants.
    alone : frozenset of str
        Modalities that say little: they count where the study has no others than these and ``modalities``.
    findings : tuple of FindingTerm
        Those with a probability.
    leading : str
        The finding that flags, and that a verdict is about unless it names another.
    tasks : frozenset of str
        Tasks whose newest package is active where nobody has decided.
    headline, subject, procedure : str
        What a flag suspects, what was scored, and what was imaged, in words.
    measures : tuple of MeasureTerm
        Findings with a value.
    kinds_of_leading : bool
        Whether the other findings are kinds of the leading one: where it is absent, so are they.
    baselines : frozenset of str
        Tasks that are there to compare with: their packages may be shadows, and never raise or average a flag.
    flags_by_age : bool
        Whether a card may have an operating point of the leading finding for each age group, and none for some.
    may_be_hint : bool
        Whether the leading finding flags nothing, and is a hint, where its card says that too few flags would be right;
        elsewhere a flag stays a flag, however seldom it is right.
    in_colour : bool
        Whether its pictures are colours: other pipelines leave a study of colours to it where it was ordered.
    hounsfield : bool
        Whether it needs Hounsfield units, which no JPEG or PNG file holds.
    picture : PictureClass or None
        None where it reads no JPEG or PNG files.
    outline : OutlineTerm or None
        None where it draws no outline.
    body_part : str
        Body Part Examined (0018,0015) where that is an unpaired one (PS3.16 annex L), for which Laterality has no
        meaning; empty elsewhere.
    sides_from : str or None
        The attribute that says which side of the image is which; None where no side is ever marked.
    """

    name: str
    priority: int
    modalities: frozenset[str]
    alone: frozenset[str]
    findings: tuple[FindingTerm, ...]
    leading: str
    tasks: frozenset[str]
    headline: str
    subject: str
    procedure: str
    measures: tuple[MeasureTerm, ...] = ()
    kinds_of_leading: bool = False
    baselines: frozenset[str] = frozenset()
    flags_by_age: bool = False
    may_be_hint: bool = False
    in_colour: bool = False
    hounsfield: bool = False
    picture: PictureClass | None = None
    outline: OutlineTerm | None = None
    body_part: str = ""
    sides_from: Literal["ImageOrientationPatient", "PatientOrientation"] | None = None

    @property
    def terms(self) -> tuple[FindingTerm, ...]:
        """All findings, those with a probability first."""
        return (*self.findings, *self.measures)


VOLUME = Concept("118565006", "SCT", "Volume")
"""The quantity of a measure that goes to the flag as its volume in mL."""

_HEMORRHAGE = Concept("1386000", "SCT", "Intracranial hemorrhage")
_LESION = Concept("52988006", "SCT", "Lesion")

HEAD_CT = Pipeline(
    name="head_ct",
    priority=3,
    modalities=frozenset({"CT"}),
    alone=frozenset(),
    findings=(
        FindingTerm("any", "Intracranial hemorrhage", _HEMORRHAGE, listed=True),
        FindingTerm("epidural", "Epidural hemorrhage"),
        FindingTerm("intraparenchymal", "Intraparenchymal hemorrhage"),
        FindingTerm("intraventricular", "Intraventricular hemorrhage"),
        FindingTerm("subarachnoid", "Subarachnoid hemorrhage"),
        FindingTerm("subdural", "Subdural hemorrhage"),
    ),
    leading="any",
    tasks=frozenset({"bleed"}),
    headline="suspected intracranial hemorrhage",
    subject="head CT",
    procedure="CT of head",
    measures=(
        MeasureTerm(
            "bleed_volume",
            concept=_HEMORRHAGE,
            listed=True,
            quantity=VOLUME,
            from_outline=True,
        ),
    ),
    kinds_of_leading=True,
    baselines=frozenset({"bleed_slice"}),
    hounsfield=True,
    outline=OutlineTerm(
        "Bleed",
        Concept("50960005", "SCT", "Hemorrhage"),
        Concept("12738006", "SCT", "Brain"),
        in_space=True,
    ),
    body_part="HEAD",
    sides_from="ImageOrientationPatient",
)

CHEST_XRAY = Pipeline(
    name="chest_xray",
    priority=5,
    modalities=frozenset({"CR", "DX", "DR", "RG"}),
    alone=frozenset({"OT", "SC"}),
    findings=(
        FindingTerm("pneumonia", concept=Concept("233604007", "SCT", "Pneumonia"), listed=True),
        FindingTerm("normal", "No finding"),
        FindingTerm("bacterial", "Bacterial pneumonia"),
        FindingTerm("viral", "Viral pneumonia"),
        FindingTerm("covid19", "COVID-19", Concept("840539006", "SCT", "Disease caused by SARS-CoV-2"), listed=True),
    ),
    leading="pneumonia",
    tasks=frozenset({"pneumonia", "pneumonia4"}),
    headline="suspected pneumonia",
    subject="chest film",
    procedure="Chest X-ray",
    flags_by_age=True,
    may_be_hint=True,
    picture=PictureClass("1.2.840.10008.5.1.4.1.1.7", "OT"),  # Secondary Capture Image Storage
    body_part="CHEST",
    sides_from="PatientOrientation",
)

DERMOSCOPY = Pipeline(
    name="dermoscopy",
    priority=7,
    modalities=frozenset({"XC", "DMS"}),
    alone=frozenset({"ES", "OT", "SC"}),
    findings=(
        FindingTerm("melanoma", concept=Concept("1162635006", "SCT", "Malignant melanoma"), listed=True),
        FindingTerm("nevus", "Nevus"),
        FindingTerm("other", "Other skin lesion"),
        FindingTerm("dx_mel", "Diagnosis: melanoma"),
        FindingTerm("dx_nv", "Diagnosis: nevus"),
        FindingTerm("dx_bkl", "Diagnosis: benign keratosis"),
        FindingTerm("dx_bcc", "Diagnosis: basal cell carcinoma"),
        FindingTerm("dx_akiec", "Diagnosis: actinic keratosis"),
        FindingTerm("dx_vasc", "Diagnosis: vascular lesion"),
        FindingTerm("dx_df", "Diagnosis: dermatofibroma"),
    ),
    leading="melanoma",
    tasks=frozenset({"lesion"}),
    headline="suspected melanoma",
    subject="skin lesion",
    procedure="Dermoscopy",
    measures=(
        MeasureTerm(
            "lesion_area",
            concept=_LESION,
            listed=True,
            quantity=Concept("lesion_area", OWN_SCHEME, "Lesion share of the image"),
            from_outline=True,
        ),
        MeasureTerm("lesion_diameter", concept=_LESION, quantity=Concept("81827009", "SCT", "Diameter")),
        MeasureTerm(
            "border_irregularity",
            concept=_LESION,
            quantity=Concept("border_irregularity", OWN_SCHEME, "Border irregularity"),
        ),
    ),
    may_be_hint=True,
    in_colour=True,
    picture=PictureClass("1.2.840.10008.5.1.4.1.1.77.1.4", "XC"),  # VL Photographic Image Storage
    outline=OutlineTerm("Lesion", _LESION, Concept("39937001", "SCT", "Skin")),
)

PIPELINES: tuple[Pipeline, ...] = (HEAD_CT, CHEST_XRAY, DERMOSCOPY)
"""All pipelines, the most urgent first. Ask with the functions below; a new pipeline is one more value here."""


def names() -> tuple[str, ...]:
    """Names of all pipelines, the most urgent first."""
    return tuple(pipeline.name for pipeline in PIPELINES)


def described(name: str | None) -> Pipeline | None:
    """The description of a pipeline; None for an unknown name (rows may be older than this version)."""
    return next((pipeline for pipeline in PIPELINES if pipeline.name == name), None)


def of_modality(modality: str) -> Pipeline | None:
    """The pipeline that wants a value of Modality."""
    return next((pipeline for pipeline in PIPELINES if modality in pipeline.modalities), None)


def leading_finding(name: str) -> str:
    """The leading finding of a pipeline; empty for an unknown one."""
    pipeline = described(name)
    return "" if pipeline is None else pipeline.leading


def flags_by_itself(name: str, finding: str) -> bool:
    """Whether a finding can be flagged; all others are hints, whatever operating point they have."""
    return bool(finding) and leading_finding(name) == finding


def flags_by_age(name: str, finding: str) -> bool:
    """Whether a finding flags at some ages and may be a hint, without a threshold, at others."""
    pipeline = described(name)
    return pipeline is not None and pipeline.flags_by_age and pipeline.leading == finding


def may_be_hint(name: str, finding: str) -> bool:
    """Whether a finding that flags is a hint, without a threshold, where too few flags would be right."""
    pipeline = described(name)
    return pipeline is not None and pipeline.may_be_hint and pipeline.leading == finding


def findings_of(name: str) -> tuple[str, ...]:
    """Names of a pipeline's findings that get a probability, the leading one first."""
    pipeline = described(name)
    return () if pipeline is None else tuple(term.name for term in pipeline.findings)


def pipeline_of_finding(finding: str) -> str | None:
    """The name of the pipeline that gives a finding a probability."""
    return next((name for name in names() if finding in findings_of(name)), None)


def term_of(finding: str, pipeline: str | None = None) -> FindingTerm | None:
    """What is known of a finding: of any pipeline, or of the named one alone."""
    terms = (term for p in PIPELINES if pipeline in (None, p.name) for term in p.terms)
    return next((term for term in terms if term.name == finding), None)


def meaning_of(finding: str) -> str:
    """A finding's name in plain words."""
    term = term_of(finding)
    return (term.meaning if term is not None else "") or finding.replace("_", " ").capitalize()


def is_volume(finding: str) -> bool:
    """Whether a finding is a volume."""
    term = term_of(finding)
    return isinstance(term, MeasureTerm) and term.quantity == VOLUME


def subject_of(name: str) -> str:
    """What a pipeline scores, in words: its name where it is not known."""
    pipeline = described(name)
    return name if pipeline is None else pipeline.subject


def headline_of(name: str) -> str:
    """What a flag of a pipeline suspects, in words: its name where it is not known."""
    pipeline = described(name)
    return name if pipeline is None else pipeline.headline
