"""Training: from prepared cases to a model."""

from volseg.training.loop import TrainingResult, train

__all__ = ["TrainingResult", "train"]
