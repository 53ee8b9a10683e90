"""Sentences about the loss, the optimiser and the course of training."""

from __future__ import annotations

from volseg.about import Hardware
from volseg.citing.words import between, count, duration, percent, ranged, sizes
from volseg.config import Config, LossConfig, LossName, TrainingConfig
from volseg.reporting.record import RunRecord
from volseg.text import listed

_PRECISIONS = {"fp32": "in single precision", "bf16": "in mixed precision (bf16)", "fp16": "in mixed precision (fp16)"}


def learning_words(config: Config) -> str:
    """Return sentences on loss, patches and optimiser."""
    patches, training = config.patches, config.training
    unit = "pixels" if config.data.unit == "px" else "voxels"
    size = patches.size[1:] if patches.size[0] == 1 else patches.size
    drawn = (
        f" Of all patches, {percent(patches.foreground)} were centred on a labelled {unit[:-1]}."
        if patches.foreground
        else ""
    )
    begun = " Weights were initialised from another model." if training.start_from else ""
    frozen = " The encoder was frozen." if training.freeze_encoder else ""
    return (
        f"Training minimised {loss_words(config.loss)} on patches of {sizes(size)} {unit}, "
        f"with a batch size of {training.batch_size}.{drawn}{begun}{frozen} {_optimizer(training)}"
    )


def loss_words(loss: LossConfig) -> str:
    """Return a noun phrase with the loss and its citations."""
    if loss.name == "mixture":
        terms = [f"{weight:g} times {_loss(name, loss)}" for name, weight in loss.terms.items()]
        return f"the sum of {listed(terms)}"
    return _loss(loss.name, loss)


def _loss(name: LossName, loss: LossConfig) -> str:  # noqa: PLR0911  one for each name
    match name:
        case "dice":
            return "the Dice loss [@milletari2016vnet]"
        case "dice_ce":
            return "the sum of the Dice loss [@milletari2016vnet] and the cross-entropy"
        case "dice_focal":
            return "the sum of the Dice loss [@milletari2016vnet] and the focal loss [@lin2017focal]"
        case "tversky":
            weights = (
                f"weights {loss.tversky_alpha:g} for false positives and {loss.tversky_beta:g} for false negatives"
            )
            return f"the Tversky loss [@salehi2017tversky] ({weights})"
        case "generalized_dice":
            return "the generalised Dice loss [@sudre2017generalised]"
        case "jaccard":
            return "the Jaccard loss [@rahman2016iou]"
        case "ce":
            return "the cross-entropy"
        case "focal":
            return "the focal loss [@lin2017focal]"


def _optimizer(training: TrainingConfig) -> str:
    match training.optimizer:
        case "muon":
            name = (
                "Muon [@jordan2024muon; @liu2025muon] for convolution kernels and AdamW [@loshchilov2019adamw] "
                "for all other parameters"
            )
        case "adamw":
            name = "AdamW [@loshchilov2019adamw]"
        case "sgd":
            name = "stochastic gradient descent with Nesterov momentum 0.99"
    warmed = "after a linear warm-up, " if training.warmup_steps else ""
    fell = (
        "along a half-cosine [@loshchilov2017sgdr]" if training.schedule == "cosine" else "polynomially with power 0.9"
    )
    clipped = f"Gradients were clipped to a maximum norm of {training.gradient_clip:g}."
    return (
        f"The optimiser was {name}, with a peak learning rate of {training.learning_rate:g} and a weight decay of "
        f"{training.weight_decay:g}; {warmed}the learning rate decayed {fell}. {clipped}"
    )


def course_words(record: RunRecord) -> str:
    """Return sentences on the duration, the hardware and the selected weights; empty if they are not recorded."""
    if not record.courses:
        return ""
    courses, training = record.courses, record.config.training
    steps = ranged([course.steps for course in courses], "step")
    epochs = ranged([course.epochs for course in courses], "epoch")
    time = duration(sum(course.seconds for course in courses))
    if len(courses) == 1:
        took = f"Training took {steps} ({epochs}) and {time}, including data preparation"
    else:
        trained = f"{count(len(courses), 'network')} were trained for {steps} ({epochs}) each".capitalize()
        took = f"{trained}, which took {time} in total, including data preparation"
    weights = (
        f"Exponential moving averages of the weights (decay {training.ema_decay:g})"
        if training.ema_decay
        else "Weights"
    )
    best = between([course.best_epoch for course in courses])
    kept = f"{weights} were kept from the epoch with the best validation Dice ({best})."
    return f"{took}{_where(record)}. {kept} The random seed was {training.seed}."


def _where(record: RunRecord) -> str:
    """Return a phrase on precision and hardware; empty if the run did not record it."""
    machines, training = record.about.hardware, record.config.training
    if not machines:
        return ""
    precision = _automatic(machines[-1]) if training.precision == "auto" else training.precision
    # A run with a time budget uses fewer threads if other programs use the machine.
    most = "up to " if training.minutes is not None and machines[0].device == "cpu" and machines[0].cores > 1 else ""
    places = " and, after an interruption, on ".join(map(machine_words, machines))
    return f", {_PRECISIONS[precision]} on {most}{places}"


def _automatic(machine: Hardware) -> str:
    """Return the precision that volseg chooses by default: bf16 if the device multiplies it natively."""
    if machine.bf16:
        return "bf16"
    return "fp16" if machine.device == "cuda" else "fp32"


def machine_words(machine: Hardware) -> str:
    """Return "one NVIDIA H200" or "two processor cores (AMD EPYC, AVX-512) with 16 GB of memory"."""
    shared = f"{machine.processes} processes, each on " if machine.processes > 1 else ""
    if machine.gpu:
        return f"{shared}one {machine.gpu}"
    kind = ", ".join(filter(None, (machine.processor, machine.instructions.replace("AVX512", "AVX-512"))))
    return f"{shared}{count(machine.cores, 'processor core')} ({kind}) with {machine.memory_gb:g} GB of memory"
