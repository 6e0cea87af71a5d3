"""Serving room: the page that shows the answer to a text: its entities, or its labels."""

from pathlib import Path

from app.evaluation.pages import render_template

PAGE = render_template("page.html", folder=Path(__file__).parent / "templates")
