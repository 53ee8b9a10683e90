"""MONAI bundles (docs.monai.io, "MONAI Bundle Specification"), read as data; nothing in them is executed."""
