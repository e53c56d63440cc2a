"""Operating points of a card: thresholds, why they are where they are, by age group where one needs it."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

LEAST_PREDICTIVE_VALUE = 0.05
"""A finding of which fewer flags than this would be right is a hint and never flags."""

SERVED_PREVALENCE: Final[dict[str, float]] = {"any": 0.027}
"""Share of the studies that a site sends which show the finding: heads with a bleed among plain head CTs."""

AgeGroup = Literal["child", "adult", "unknown"]

AGE_GROUPS: tuple[AgeGroup, ...] = ("child", "adult", "unknown")
"""Groups of :class:`OperatingPointByAge`; who is a child says :func:`worker.pipelines.population.age_group`."""

NoFlag = Literal["no_positives", "no_negatives", "no_threshold", "hint"]
"""Why a group has no flag: no validation films with the finding, none without it, no threshold that keeps the
specificity and finds anybody, or one at which too few flags would be right (:data:`LEAST_PREDICTIVE_VALUE`)."""


class OperatingPoint(BaseModel):
    """A threshold with the reason why it is where it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    finding: str
    threshold: float
    chosen_for: str
    sensitivity: float | None = None
    specificity: float | None = None
    n: int | None = None

    def threshold_for(self, age_group: AgeGroup) -> float | None:
        """The one threshold, whatever the age."""
        return self.threshold

    def no_flag_for(self, age_group: AgeGroup) -> NoFlag | None:
        """Why there is no flag: there always is one."""
        return None

    def deciding(self) -> list[Any]:
        """What decides about a flag, as plain values."""
        return [self.finding, self.threshold]


class Share(BaseModel):
    """A measured proportion with its 95 % interval; ``n`` counts what it is a proportion of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float = Field(ge=0, le=1)
    low: float | None = None
    high: float | None = None
    n: int
    patients: int | None = None


class Prevalence(BaseModel):
    """How common a finding is where a package is meant to serve, and who says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float = Field(gt=0, lt=1)
    source: str = Field(min_length=1)


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
