"""nnU-Net v2 (Isensee et al. 2021, Nature Methods 18:203): its folders, of which nothing is executed."""
