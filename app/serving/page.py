"""Serving room: the page: texts and answers, corrections, the review queue, the versions. It needs no other host."""

import base64
import hashlib
import re
from pathlib import Path

from app.evaluation.pages import render_template

PAGE = render_template("page.html", folder=Path(__file__).parent / "templates")


def _hashes(tag: str) -> str:
    """Sources of a content security policy that allow what stands in the page and nothing else."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    sums = [base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode() for content in contents]
    return " ".join(f"'sha256-{each}'" for each in sums)


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hashes('script')}; style-src {_hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
