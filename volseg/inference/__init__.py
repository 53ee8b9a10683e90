"""Sliding-window inference, one slab at a time: volume -> windows -> logits -> labels on the volume's own grid.

`network_input` is the volume as the network sees it, `tissue` finds what is not air, `windows` places the patches,
`engines` runs the network (`network_rewriting` makes it lean, `engine_trials` finds the fastest engine), `sliding` sums
the logits, and `restore` decides labels on the volume's original grid. `segmentation` combines all of it.
"""
