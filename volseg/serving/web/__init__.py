"""The web side: one application with the page, its interface, and that of MONAI Label."""
