"""What workers of this machine import once for all of them: it takes seconds."""

import distributed

import volseg.prediction.tasks
import volseg.transforms

__all__ = ["distributed", "volseg"]
