"""Modes room: one file per mode, `run(request) -> metrics`; the middle rooms meet here, no algorithms."""
