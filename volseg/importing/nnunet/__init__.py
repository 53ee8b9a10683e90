"""nnU-Net v2 (Isensee et al. 2021, Nature Methods 18:203): import of its model folders, without executing anything."""
