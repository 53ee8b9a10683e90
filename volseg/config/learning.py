"""Patches, loss and training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from volseg.config.section import ContradictionError, Fraction, IntTriple, Section


def _fold(given: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """One fault for a value that is neither of the two; pydantic has one for each."""
    try:
        return check(given)
    except ValidationError as error:
        raise ValueError(f"it is the number of a fold, from 0, or all; given {given!r}") from error


LossName = Literal["dice_ce", "dice", "dice_focal", "tversky", "generalized_dice", "jaccard", "ce", "focal"]
OptimizerName = Literal["muon", "adamw", "sgd"]
Fold = Annotated[Annotated[int, Field(ge=0)] | Literal["all"], WrapValidator(_fold)]


class PatchConfig(Section):
    """The boxes of voxels the network sees.

    Attributes:
        size: Voxels along R, A, S at the target spacing; each divisible by what the network needs.
        foreground: Share of training patches that are centred on a voxel of a label, all labels equally often.
        planes: Whether volumes are learned slice by slice: patches are one voxel thick along the first axis, unless a
            network sees neighbouring slices (`network.neighbors`).
    """

    size: IntTriple
    foreground: Fraction = 0.67
    planes: bool = False


class LossConfig(Section):
    """What training minimises.

    Attributes:
        name: Which loss; "ce" is cross-entropy, and "mixture" the sum of `terms`.
        terms: Of a mixture: loss and weight, as in {dice: 1, focal: 0.5}.
        batch: Whether overlaps are summed over the batch before the ratio is taken (steadier for small structures).
        background: Whether background counts as a class of the overlap losses.
        tversky_alpha: Weight of false positives (Tversky only).
        tversky_beta: Weight of false negatives (Tversky only).
    """

    name: Literal[LossName, "mixture"] = "dice_ce"
    terms: Mapping[LossName, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    batch: bool = True
    background: bool = False
    tversky_alpha: Fraction = 0.3
    tversky_beta: Fraction = 0.7

    @model_validator(mode="after")
    def _terms_of_a_mixture(self) -> LossConfig:
        if bool(self.terms) != (self.name == "mixture"):
            raise ContradictionError(
                "a mixture has terms, and no other loss has", hint="loss.name=mixture loss.terms={dice: 1, focal: 0.5}"
            )
        return self


class TrainingConfig(Section):
    """How the network learns.

    Attributes:
        epochs: Rounds of `steps_per_epoch` steps, each followed by a checkpoint; when left out, as many as `minutes`
            allow.
        steps_per_epoch: Optimiser steps in an epoch.
        minutes: Time for the whole run, reading and validation included; the schedule is fitted to it.
        default_steps: Optimiser steps of a run that neither `epochs` nor `minutes` limit.
        target_dice: The run ends with the first validation whose Dice is at least this.
        batch_size: Patches in a step.
        optimizer: Muon (with AdamW where it is not defined), AdamW, or SGD with Nesterov momentum 0.99.
        learning_rate: At the peak of the schedule.
        weight_decay: As the optimiser defines it.
        schedule: How the learning rate falls after warm-up: half a cosine, or (1 - progress)^0.9.
        warmup_steps: Steps over which it rises from zero, or a tenth of the run where that is less.
        gradient_clip: Largest norm of the gradient.
        ema_decay: Validated and saved weights are an exponential average of the trained ones; 0 takes them as they are.
        start_from: A run, a model file or a file of weights that the network starts with, as far as they fit.
        freeze_encoder: Whether only the way up learns, and layers of the way down that could not be taken over.
        precision: Of the network's arithmetic; auto is bf16 or fp16 where the machine is faster with it.
        memory_format: How feature maps lie in memory; auto is channels_last on a GPU and contiguous on a CPU.
        validation_interval: Epochs between validations; 0 lets it follow from the time they take.
        patience: Validations without a better Dice after which training stops; 0 never stops early.
        folds: Parts the cases are dealt into; one is held out.
        fold: Which part is held out for validation, from 0; "all" trains a network for each.
        holdout: When above 0, one share of the cases is held out instead of a fold.
        split: Whether a split that the data set states is used where it does, or cases are dealt in any case.
        validation_cases: At most this many held-out cases are used while training.
        validate_all: Whether the final validation takes all held-out cases and views, however long that is; otherwise
            it takes a tenth of `minutes` at most.
        workers: Threads that make patches ahead of the network; 0 makes them in between the steps.
        seed: Of splits, weights, patches and augmentation.
    """

    epochs: Annotated[int, Field(ge=1)] | None = None
    steps_per_epoch: Annotated[int, Field(ge=1)] = 50
    minutes: Annotated[float, Field(gt=0)] | None = None
    default_steps: Annotated[int, Field(ge=1)] = 10_000
    target_dice: Fraction | None = None
    batch_size: Annotated[int, Field(ge=1)] = 4
    optimizer: OptimizerName = "muon"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    schedule: Literal["cosine", "poly"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    gradient_clip: Annotated[float, Field(gt=0)] = 12.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    start_from: str | None = None
    freeze_encoder: bool = False
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    validation_interval: Annotated[int, Field(ge=0)] = 0
    patience: Annotated[int, Field(ge=0)] = 0
    folds: Annotated[int, Field(ge=2)] = 5
    fold: Fold = 0
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    split: Literal["stated", "dealt"] = "stated"
    validation_cases: Annotated[int, Field(ge=1)] = 16
    validate_all: bool = False
    workers: Annotated[int, Field(ge=0)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @property
    def steps(self) -> int | None:
        """Steps of the whole run; None where only time ends it."""
        if self.epochs is not None:
            return self.epochs * self.steps_per_epoch
        return self.default_steps if self.minutes is None else None

    @model_validator(mode="after")
    def _fold_exists(self) -> TrainingConfig:
        if self.fold != "all" and self.fold >= self.folds:
            raise ContradictionError(
                f"fold {self.fold} does not exist: there are {self.folds}, counted from 0",
                hint=f"choose 0 to {self.folds - 1}, or all",
            )
        return self
