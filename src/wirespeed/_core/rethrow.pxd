"""Nothing for other modules of the core."""
