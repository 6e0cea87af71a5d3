"""Evaluation room: HTML pages from Jinja2 templates, the only place that knows Jinja2.

Whatever a template inserts is text, never markup, and holds only characters that XML can hold, so that every page
is well-formed XML too if its template is.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
# Characters that XML cannot hold, lone surrogates among them.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def render_template(name: str, *, folder: Path = TEMPLATES, **values: Any) -> str:
    """A page.

    Args:
        name: of the template.
        folder: where it lies; what it includes or extends may also lie in `TEMPLATES`.
        values: what the template may insert; `Markup` goes in as it is, everything else as text.
    """
    return _environment(folder).get_template(name).render(**values)


def printable(text: str) -> str:
    """The text with U+FFFD in place of characters that XML cannot hold."""
    return _UNPRINTABLE.sub("\ufffd", text)


@cache
def _environment(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )


def _finalize(value: Any) -> Any:
    """Called with every value before it is escaped."""
    if isinstance(value, Markup):
        return Markup(printable(value))
    return printable(value) if isinstance(value, str) else value
