"""Trained networks: architectures, meaning of outputs, and model files."""
