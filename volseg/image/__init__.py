"""What lies on a grid and where: geometry, volumes, masks, and what their labels mean."""
