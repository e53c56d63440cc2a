"""A recipe: a TOML file that says what is trained on what, and how."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from firstread.errors import FirstreadError
from worker.packages.card import InputSpec
from worker.packages.operating_points import Prevalence


class RecipeError(FirstreadError):
    """The recipe does not exist, or does not say what it must."""


class RecipeTable(BaseModel):
    """A table of a recipe: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LossSpec(RecipeTable):
    """One loss on one output: a name of :data:`training.fit.losses.LOSSES` and its options."""

    name: str
    weight: float = 1.0
    options: dict[str, Any] = Field(default_factory=dict)


class Schedule(RecipeTable):
    """Adam with decoupled decay; warm-up, then cosine to zero (or a constant rate)."""

    steps: int = 0
    steps_per_epoch: int = 50
    epochs: int = 0
    """Passes over the training data; ``steps`` and ``steps_per_epoch`` then follow from its size."""
    checkpoint_steps: int = 0
    """Steps after which a checkpoint is written within an epoch; 0 for the end of epochs alone."""
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    decay: str = "cosine"
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema: float = 0.0
    optimizer: str = "adamw"
    """``adamw``, ``adam`` or ``sgd``."""
    momentum: float = 0.9
    """Of ``sgd``."""
    freeze_steps: int = 0
    """Steps for which the encoder's layers are not trained (transfer learning in two stages)."""
    frozen: tuple[str, ...] = ()
    """Prefixes of layer names that are never trained, e.g. an encoder's first blocks: half the time of a step."""
    early_stopping: int = 0
    """Epochs without a better validation loss after which training stops; 0 for never."""
    best: bool = False
    """Keep the weights of the best validation epoch instead of the last; with ``ema`` their averages then.

    The epochs are judged by the weights as they are.
    """
    initial_loss: float | None = None
    """Loss that an untrained network must show within 0.1 before training starts."""


class Folds(RecipeTable):
    """How out-of-fold predictions come about: by a data set's own folds, or by its train/val/test column."""

    dataset: str = ""
    also: tuple[str, ...] = ()
    """Other data sets of the same patients under the same names: whoever is in test is in test in these too."""
    names: tuple[str, ...] = ()
    """``*`` alone: whatever the data call their folds."""
    validation: dict[str, float] = Field(default_factory=dict)
    """Data set -> share of its patients that is held back for validation, the same in every fold."""
    join: bool = False
    """Ship the folds' networks joined into one instead of training another on all folds."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Every data set whose patients are divided by these folds."""
        return (self.dataset, *self.also)

    @model_serializer(mode="wrap")
    def _lean(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out ``also`` where it is empty, so that runs from before there was any go on."""
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if value or name != "also"}


class Teacher(RecipeTable):
    """How an earlier run (``firstread train --start``) draws masks where only a slice's label is known."""

    low: float = 0.1
    """Probability that counts as no bleed."""
    high: float = 0.4
    """Probability that counts as bleed; a slice in which the teacher nowhere reaches it keeps its unknown mask."""


class HardNegatives(RecipeTable):
    """Slices without bleed that an earlier run (``--start``) takes for bleeding: they get the attribute ``hard=1``."""

    share: float = 0.15
    """Share of each data set's negative slices, those with the highest score."""


class Adversary(RecipeTable):
    """A head that guesses the hospital while the encoder learns to hide it; its loss is that of ``source``."""

    hospitals: tuple[str, ...]
    layer: str = "dropout"
    """Layer whose output, pooled, it guesses from."""
    width: int = 64
    strength: float = 1.0
    """Factor of the gradient that is turned round into the encoder."""


class PackagePart(RecipeTable):
    """A package that gets some of the recipe's labels: the network, and of its last layer their columns."""

    task: str
    labels: tuple[str, ...]
    card: dict[str, Any] = Field(default_factory=dict)
    """As the recipe's own; what it does not say is the recipe's."""


_LATER = (
    *("leave_out", "adversary", "packages", "restacked", "hard"),
    *("validation_share", "class_weight", "frozen_base"),
)


class Recipe(RecipeTable):
    """Everything that ``firstread train`` needs but the data's place."""

    name: str
    task: str
    pipeline: str
    description: str
    datasets: dict[str, str]
    """Reader -> sub-folder of ``--data``; ``.`` for the folder itself."""
    labels: tuple[str, ...]
    input: InputSpec
    architecture: dict[str, Any]
    losses: dict[str, LossSpec]
    shares: dict[str, float] = Field(default_factory=dict)
    """Share of every batch by :func:`training.fit.batches.groups_by`'s keys."""
    leave_out: tuple[str, ...] = ()
    """Hospitals of which nothing is trained or validated on; they are measured as external."""
    adversary: Adversary | None = None
    packages: dict[str, PackagePart] = Field(default_factory=dict)
    """By name, what becomes of a network that learnt the labels of several packages; none: it is one package."""
    validation_share: float = 0.0
    """Share of the patients of ``train`` and ``val`` that validate, by hash; 0 for the data sets' own parts."""
    class_weight: Literal["", "inverse"] = ""
    """``inverse``: classes weigh in the loss inversely to their counts among the rows that are trained on."""
    frozen_base: bool = False
    """The pre-trained layers never learn: what they give is computed once for every picture, and the rest is trained
    on it (:mod:`training.fit.frozen`)."""
    patients_first: bool = True
    augment: dict[str, Any] = Field(default_factory=dict)
    mixup: float = 0.0
    """Parameter of mixup's Beta distribution; 0 mixes nothing."""
    carve: float = 0.0
    """Share of a batch's slices with a known mask into which another patient's bleed is put."""
    drawn: float = 0.0
    """Share of a batch's slices with a known mask into which a bleed is drawn (:mod:`training.augmentation.bleeds`)."""
    restacked: float = 0.0
    """Share of a batch's slices that are shown with another thickness (:mod:`training.augmentation.thickness`)."""
    hard: HardNegatives | None = None
    teacher: Teacher | None = None
    schedule: Schedule = Schedule()
    final_steps: int = 0
    """Steps of the model that is trained on all folds; 0 for the schedule's."""
    folds: Folds = Folds()
    card: dict[str, Any] = Field(default_factory=dict)
    """Text of the card: intended use, limits, licence, population, training data."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Options of the task's own steps (evaluation, packaging); read by the task's module."""
    seed: int = 1

    @property
    def joins(self) -> bool:
        """Whether its network is made of packages (``firstread train --join``) instead of being trained."""
        return bool(self.architecture.get("builder") == "joined" and not self.architecture.get("members"))

    @property
    def prevalence(self) -> Prevalence | None:
        """What the table ``[card.prevalence]`` names: ``value`` and ``source``."""
        return Prevalence.model_validate(self.card["prevalence"]) if "prevalence" in self.card else None

    @model_serializer(mode="wrap")
    def _lean(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what is empty of the later fields, so that runs from before there were any go on."""
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if value or name not in _LATER}

    @model_validator(mode="after")
    def _adversary_has_a_loss(self) -> Recipe:
        if ("source" in self.losses) != (self.adversary is not None):
            raise ValueError("an adversary needs a loss on the output source, and such a loss an adversary")
        return self

    @model_validator(mode="after")
    def _can_restack(self) -> Recipe:
        spec = self.input
        if self.restacked and (spec.kind, len(spec.windows), spec.neighbours) != ("hu", 1, 1):
            raise ValueError("restacked needs hu input, one window, and one neighbour on either side")
        return self

    @model_validator(mode="after")
    def _has_a_length(self) -> Recipe:
        if (self.schedule.steps > 0) + (self.schedule.epochs > 0) != (0 if self.joins else 1):
            raise ValueError("a schedule has either steps or epochs, and none where packages are joined")
        return self


def load_recipe(name_or_path: str) -> Recipe:
    """A shipped recipe by name, or any TOML file by path; one with a ``base`` says only what differs from that recipe.

    Raises
    ------
    RecipeError
        If there is none, or it does not fit the schema.
    """
    try:
        return Recipe.model_validate(_tables(name_or_path))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise RecipeError(f"recipe {name_or_path}: {error}") from error


def _tables(name_or_path: str) -> dict[str, Any]:
    """A recipe's tables, those of its ``base`` (another recipe) below them where it names one."""
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        resource = files("training") / "recipes" / f"{name_or_path}.toml"
        if not resource.is_file():
            raise RecipeError(f"no recipe {name_or_path!r}; there are {', '.join(shipped())}")
        text = resource.read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    base = tables.pop("base", None)
    return tables if base is None else _merged(_tables(str(base)), tables)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables of both, value by value; where both say something, what is above.

    A table with ``base = false`` takes the place of the whole table below.
    """
    both = {}
    for name, value in above.items():
        under = below.get(name)
        if isinstance(value, dict) and value.get("base") is False:
            both[name] = {key: inner for key, inner in value.items() if key != "base"}
        elif isinstance(value, dict) and isinstance(under, dict):
            both[name] = _merged(under, value)
        else:
            both[name] = value
    return {**below, **both}


def sized(recipe: Recipe, rows: int) -> Recipe:
    """The recipe with the steps that its ``epochs`` are on so many rows; others come back as they are."""
    schedule = recipe.schedule
    if not schedule.epochs:
        return recipe
    per_epoch = max(1, rows // schedule.batch_size)
    steps = {"steps": schedule.epochs * per_epoch, "steps_per_epoch": per_epoch, "epochs": 0}
    return recipe.model_copy(update={"schedule": schedule.model_copy(update=steps)})


def mask_stride(recipe: Recipe) -> int:
    """Pixels of the input, either way, for one of the mask."""
    return int(recipe.parameters.get("mask_stride", 2))


def mask_size(recipe: Recipe) -> tuple[int, int] | None:
    """Height and width of the network's mask; None for a recipe without."""
    if "mask_logits" not in recipe.losses:
        return None
    return recipe.input.height // mask_stride(recipe), recipe.input.width // mask_stride(recipe)


def shipped() -> list[str]:
    """Names of the recipes that come with Firstread."""
    return sorted(
        p.name.removesuffix(".toml") for p in (files("training") / "recipes").iterdir() if p.name.endswith(".toml")
    )
