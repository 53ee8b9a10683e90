"""Patches, loss and training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from volseg.config.section import ContradictionError, Fraction, IntTriple, Section


def _fold(given: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Check the value of `fold`, with one error instead of pydantic's error per type."""
    try:
        return check(given)
    except ValidationError as error:
        raise ValueError(f"must be the number of a fold, from 0, or all; given {given!r}") from error


LossName = Literal["dice_ce", "dice", "dice_focal", "tversky", "generalized_dice", "jaccard", "ce", "focal"]
OptimizerName = Literal["muon", "adamw", "sgd"]
Fold = Annotated[Annotated[int, Field(ge=0)] | Literal["all"], WrapValidator(_fold)]


class PatchConfig(Section):
    """Patches: the boxes of voxels that the network is trained on.

    Attributes:
        size: Voxels along each axis at the target spacing; each must be a multiple of the network's total stride.
        foreground: Share of training patches centred on a labelled voxel, of a label drawn uniformly; the others are
            placed at random.
        planes: Learn volumes slice by slice (2D): patches are one voxel thick along the first axis, plus the slices of
            `network.neighbors`.
    """

    size: IntTriple
    foreground: Fraction = 0.67
    planes: bool = False


class LossConfig(Section):
    """The loss that training minimises.

    Attributes:
        name: Loss function; `ce` is cross-entropy, `mixture` the weighted sum of `terms`.
        terms: Losses of a mixture and their weights, such as {dice: 1, focal: 0.5}.
        batch: Compute overlap losses over the whole batch (batch Dice), which is steadier for small structures.
        background: Count background as a class in overlap losses.
        tversky_alpha: Weight of false positives in the Tversky loss.
        tversky_beta: Weight of false negatives in the Tversky loss.
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
                "terms are required for a mixture, and not allowed for other losses",
                hint="loss.name=mixture loss.terms={dice: 1, focal: 0.5}",
            )
        return self


class TrainingConfig(Section):
    """Schedule, optimiser and validation.

    Attributes:
        epochs: Number of epochs of `steps_per_epoch` steps; null trains for `minutes`, or for `default_steps`; with
            both limits, the one reached first ends the run.
        steps_per_epoch: Optimiser steps per epoch.
        minutes: Time budget of the whole run in minutes, preprocessing and validation included; the learning rate
            schedule is fitted to it.
        default_steps: Optimiser steps of a run with neither `epochs` nor `minutes`.
        target_dice: Validation Dice at which training stops.
        batch_size: Patches per optimiser step, over all processes together.
        optimizer: Optimiser: `muon` (AdamW for parameters that are not kernels), `adamw`, or `sgd` with Nesterov
            momentum 0.99.
        learning_rate: Peak learning rate; suitable values depend on the optimiser, and the plan takes 0.008 for `muon`.
        weight_decay: Weight decay, as the optimiser defines it.
        schedule: Decay of the learning rate after warm-up: `cosine` (half a period), or `poly`, (1 - progress)^0.9.
        warmup_steps: Steps over which the learning rate rises from zero, capped at a tenth of the run.
        gradient_clip: Maximum norm of the gradient; larger gradients are scaled down to it.
        ema_decay: Decay of the exponential moving average of the weights, which is validated and saved; 0 disables
            averaging.
        start_from: Run, model file or file of weights to start from (fine-tuning); layers that do not fit are
            re-initialised.
        freeze_encoder: Train only the decoder, and encoder layers that could not be loaded.
        precision: Precision of training; `auto` takes mixed precision in bf16 or fp16 where that is faster.
        memory_format: Memory layout of feature maps; `auto` is channels_last on a GPU and contiguous on a CPU.
        validation_interval: Epochs between validations; 0 chooses the interval so that validation takes a small share
            of the time.
        patience: Validations without a better Dice after which training stops (early stopping); 0 never stops early.
        folds: Number of folds for cross-validation.
        fold: Fold held out for validation, counted from 0; `all` trains one network per fold.
        holdout: Share of the cases held out for validation instead of a fold; 0 holds out a fold.
        split: Use the split that the data set states, if any (`stated`), or always split the cases at random (`dealt`).
        validation_cases: Maximum number of validation cases scored during training, evenly chosen.
        validate_all: Score all validation cases with full test-time augmentation at the end, however long it takes;
            otherwise the final validation takes at most a tenth of `minutes`.
        workers: Data-loading threads, which prepare patches; 0 prepares them between steps.
        seed: Random seed of splits, weights, patches and augmentation.
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
        """Steps of the whole run; None if only the time limits it."""
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
