"""The trained network and all it takes to use it: architecture, what its outputs mean, the file it lives in."""
