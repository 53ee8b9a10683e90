"""Geometry, volumes and masks, and the meaning of their labels."""
