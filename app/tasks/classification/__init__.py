"""Tasks room: one or several labels for a whole text."""
