"""Tasks room: text classification."""
