"""Modes room: search for settings: many trainings, the best of them again with other seeds, a report."""

from app.run.directory import Request


def run(request: Request) -> dict[str, float]:
    """Goes through the trials that are left; the test corpus is not read. See `app.search.search`."""
    from app.search.search import search  # Optuna takes its time

    return search(request)
