"""Settings of the store of corrections, which --mode=serve fills and --mode=update reads."""

from __future__ import annotations

from dataclasses import dataclass

from app.config.options import option


@dataclass(frozen=True)
class FeedbackConfig:
    """Where corrections are kept."""

    url: str = option(
        "",
        "database of the corrections: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST:PORT/NAME; empty = "
        "feedback.sqlite in the run directory, made when it is first needed; PGPASSWORD can give the password instead",
        secret=True,
    )
    author: str = option("", "who corrections are by if they do not say it themselves")
