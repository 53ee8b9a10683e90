"""A volume through a network, a slab at a time: network_input -> windows -> logits -> labels on the volume's own grid.

`network_input` is the volume as the network sees it, `tissue` tells where there is anything to see, `windows` lays the
patches, `engines` runs the network (`network_rewriting` makes it lean, `engine_trials` finds the fastest way),
`sliding` adds the logits up, and `restore` decides on the grid that the volume came with. `segmentation` is all of it.
"""
