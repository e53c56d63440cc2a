"""Operating points of a card: thresholds, why they are where they are, by age group where one needs it."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from firstread.pipelines import may_be_hint, pipeline_of_finding

LEAST_PREDICTIVE_VALUE = 0.05
"""A finding of which fewer flags than this would be right is a hint and never flags, where its pipeline has hints."""

AgeGroup = Literal["child", "adult", "unknown"]

AGE_GROUPS: tuple[AgeGroup, ...] = ("child", "adult", "unknown")
"""Groups of :class:`OperatingPointByAge`; who is a child says :func:`worker.pipelines.population.age_group`."""

NoFlag = Literal["no_positives", "no_negatives", "no_threshold", "hint"]
"""Why a group has no flag: no validation films with the finding, none without it, no threshold that keeps the
specificity and finds anybody, or one at which too few flags would be right (:data:`LEAST_PREDICTIVE_VALUE`)."""


class Prevalence(BaseModel):
    """How common a finding is where a package is meant to serve, and who says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float = Field(gt=0, lt=1)
    source: str = Field(min_length=1)


SERVED_PREVALENCE: Final[dict[str, Prevalence]] = {
    "any": Prevalence(
        value=0.027,
        source="61,704 consecutive plain head CTs of a teleradiology service: Del Gaizo et al. 2024, Radiology: "
        "Artificial Intelligence 6(5):e240067. Emergency departments have seen 0.030 to 0.061 (Lee et al. 2013, "
        "Emergency Radiology 20:219; Abrigo et al. 2023, Hong Kong Medical Journal 29:112)",
    )
}
"""Of findings whose cards name none: share of the studies that a site sends which show the finding."""


class OperatingPoint(BaseModel):
    """A threshold with the reason why it is where it is.

    Where too few flags would be right at the ``prevalence``, and the finding's pipeline has hints, nothing flags: the
    figures decide, and ``threshold`` is then where they were measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    finding: str
    threshold: float
    chosen_for: str
    sensitivity: float | None = None
    specificity: float | None = None
    n: int | None = None
    prevalence: Prevalence | None = None

    def threshold_for(self, age_group: AgeGroup) -> float | None:
        """The one threshold, whatever the age; None for a hint."""
        return None if self.is_hint else self.threshold

    def no_flag_for(self, age_group: AgeGroup) -> NoFlag | None:
        """Why there is no flag; None where there is one."""
        return "hint" if self.is_hint else None

    @property
    def served_at(self) -> Prevalence | None:
        """The prevalence at which it is meant to serve: its own, or that of all packages."""
        return self.prevalence or SERVED_PREVALENCE.get(self.finding)

    def share_right_for(self, age_group: AgeGroup) -> float | None:
        """:attr:`share_right`, whatever the age."""
        return self.share_right

    @property
    def share_right(self) -> float | None:
        """Share of the flags that are right at that prevalence; None where nothing says so."""
        if self.served_at is None or self.sensitivity is None or self.specificity is None:
            return None
        return predictive_value(self.sensitivity, self.specificity, self.served_at.value)

    @property
    def is_hint(self) -> bool:
        """Whether so few flags would be right that nothing flags."""
        share = self.share_right
        return (
            share is not None
            and share < LEAST_PREDICTIVE_VALUE
            and may_be_hint(pipeline_of_finding(self.finding) or "", self.finding)
        )

    def deciding(self) -> list[Any]:
        """What decides about a flag, and about a hint, as plain values."""
        if self.prevalence is None:
            return [self.finding, self.threshold]
        return [self.finding, self.threshold, self.sensitivity, self.specificity, self.prevalence.model_dump()]

    @model_validator(mode="after")
    def _prevalence_says_how_many_are_right(self) -> OperatingPoint:
        if self.prevalence is not None and self.share_right is None:
            raise ValueError(f"{self.finding}: a flag at a prevalence needs sensitivity and specificity")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_prevalence(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if name != "prevalence" or value is not None}


class Share(BaseModel):
    """A measured proportion with its 95 % interval; ``n`` counts what it is a proportion of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float = Field(ge=0, le=1)
    low: float | None = None
    high: float | None = None
    n: int
    patients: int | None = None


class AgeGroupPoint(BaseModel):
    """Threshold of one age group, or None with the reason why there is no flag.

    ``measured_at`` is the threshold that the figures of a hint belong to; those of a flag belong to ``threshold``.
    ``specificity`` is of everybody without the finding, ``specificity_normals`` of those who have nothing at all, and
    ``sensitivity_of`` of kinds of the finding. ``predictive_value`` is the share of flags that would be right at the
    card's prevalence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float | None
    no_flag: NoFlag | None = None
    measured_at: float | None = None
    sensitivity: Share | None = None
    specificity: Share | None = None
    specificity_normals: Share | None = None
    sensitivity_of: dict[str, Share] = Field(default_factory=dict)
    predictive_value: float | None = None

    @model_validator(mode="after")
    def _has_threshold_or_reason(self) -> AgeGroupPoint:
        if (self.threshold is None) == (self.no_flag is None):
            raise ValueError("a group has either a threshold or a reason for none (no_flag)")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_figures(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if name == "threshold" or value not in (None, {})}


class OperatingPointByAge(BaseModel):
    """A threshold for each age group. Where ``threshold`` of a group is None, the finding never flags there.

    ``unknown`` is derived: the higher threshold of the two others, and none where one of them has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    finding: str
    chosen_for: str
    groups: dict[AgeGroup, AgeGroupPoint]
    prevalence: Prevalence | None = None

    def threshold_for(self, age_group: AgeGroup) -> float | None:
        """The threshold of a group; None where nothing flags."""
        return self.groups[age_group].threshold

    def no_flag_for(self, age_group: AgeGroup) -> NoFlag | None:
        """Why a group has no flag; None where it has one."""
        return self.groups[age_group].no_flag

    @property
    def served_at(self) -> Prevalence | None:
        """The prevalence at which it is meant to serve."""
        return self.prevalence

    def share_right_for(self, age_group: AgeGroup) -> float | None:
        """Share of the flags of a group that are right at that prevalence; None where nothing says so."""
        return self.groups[age_group].predictive_value

    def deciding(self) -> list[Any]:
        """What decides about a flag, and about a hint, as plain values."""
        fields = self.model_dump(mode="json", include={"groups", "prevalence"})
        return [self.finding, fields["groups"], fields.get("prevalence")]

    @model_validator(mode="after")
    def _groups_agree(self) -> OperatingPointByAge:
        if set(self.groups) != set(AGE_GROUPS):
            raise ValueError(f"groups are {', '.join(AGE_GROUPS)}, all of them")
        if self.groups["unknown"] != point_of_unknown_age(self.groups["child"], self.groups["adult"]):
            raise ValueError("unknown has the higher threshold of child and adult, none where one of them has none")
        for name in ("child", "adult"):
            _check_predictive_value(name, self.groups[name], self.prevalence)
        return self

    @model_serializer(mode="wrap")
    def _without_absent_prevalence(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if value is not None}


def point_of_unknown_age(child: AgeGroupPoint, adult: AgeGroupPoint) -> AgeGroupPoint:
    """What counts for a patient of unknown age: the higher threshold, and no flag where one of the groups has none."""
    if child.threshold is not None and adult.threshold is not None:
        return AgeGroupPoint(threshold=max(child.threshold, adult.threshold))
    reasons = [point.no_flag for point in (child, adult) if point.no_flag is not None]
    return AgeGroupPoint(threshold=None, no_flag=next((r for r in reasons if r != "hint"), "hint"))


def predictive_value(sensitivity: float, specificity: float, prevalence: float) -> float | None:
    """Share of flags that are right, to four digits; None where nothing is flagged."""
    right, wrong = sensitivity * prevalence, (1.0 - specificity) * (1.0 - prevalence)
    return round(right / (right + wrong), 4) if right + wrong > 0 else None


def _check_predictive_value(name: str, point: AgeGroupPoint, prevalence: Prevalence | None) -> None:
    """Raise ``ValueError`` unless value and hint of a group are what its figures and the prevalence make of them."""
    value = None
    if prevalence is not None and point.sensitivity is not None and point.specificity is not None:
        value = predictive_value(point.sensitivity.value, point.specificity.value, prevalence.value)
    if point.predictive_value is None or value is None:
        agrees = point.predictive_value is value
    else:
        agrees = abs(point.predictive_value - value) < 1e-3
    if not agrees:
        raise ValueError(f"{name}: the predictive value is not that of the figures at the prevalence ({value})")
    if prevalence is not None and point.threshold is not None and value is None:
        raise ValueError(f"{name}: a flag at a prevalence needs sensitivity and specificity")
    is_hint = value is not None and value < LEAST_PREDICTIVE_VALUE
    if is_hint != (point.no_flag == "hint"):
        raise ValueError(f"{name}: a predictive value below {LEAST_PREDICTIVE_VALUE} is a hint, and nothing else is")
    if is_hint != (point.measured_at is not None):
        raise ValueError(f"{name}: a hint says at which threshold it was measured, and nothing else does")
