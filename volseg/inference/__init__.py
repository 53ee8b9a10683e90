"""A volume through a network, a slab at a time: scene -> windows -> logits -> labels on the volume's own grid.

`scene` is the volume as the network sees it, `tissue` tells where there is anything to see, `windows` lays the
patches, `engines` runs the network (`rewriting` makes it lean, `calibration` finds the fastest way), `sliding` adds the
answers up, and `restore` decides on the grid that the volume came with. `segmentation` is all of it.
"""
