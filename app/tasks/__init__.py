"""Tasks room."""
