"""Training, from a folder of cases to a model: start reading at `run`, which trains on a folder, and `loop`."""
