"""From prepared cases to a model: `run` trains on a folder, `loop` tells the story, and the rest serves it."""
