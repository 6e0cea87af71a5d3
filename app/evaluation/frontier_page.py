"""Evaluation room: `frontier.html`, the picture and the numbers of a frontier on one page that needs no network."""

import base64
from collections.abc import Sequence
from html import escape

from app.evaluation.frontier import Contestant
from app.evaluation.html_style import CSS

_CSS = """
img { width: 100%; border-radius: .5rem; }
th { white-space: normal; }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
p + p { margin-top: .4rem; }
"""


def frontier_page(
    contestants: Sequence[Contestant], *, picture: bytes, best: set[str], title: str, notes: Sequence[str]
) -> str:
    """The page.

    Args:
        contestants: what was measured.
        picture: a PNG.
        best: names of those on the frontier, whose lines are bold.
        title: of the page.
        notes: sentences below the table.
    """
    settings = sorted(contestants[0].latency_ms, key=lambda setting: (setting[1], setting[0]))
    columns = ["", "runtime", "MB", "F1", *(f"{pieces} pieces, {threads} thr." for pieces, threads in settings)]
    head = "".join(f"<th>{name}</th>" for name in (*columns, "words/s"))
    rows = "".join(_row(each, settings, on_frontier=each.name in best) for each in contestants)
    image = base64.b64encode(picture).decode("ascii")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}{_CSS}</style>\n</head>\n"
        f'<body>\n<main>\n<header><h1>{escape(title)}</h1></header>\n<section class="card">'
        f'<img alt="Entity F1 against size and against latency" src="data:image/png;base64,{image}"/></section>\n'
        '<section class="card"><h2>Numbers</h2><p class="quiet">Milliseconds per text; bold: no other is smaller, '
        'better and faster at once</p>'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div></section>\n<section class=\"card\">{''.join(f'<p>{escape(note)}</p>' for note in notes)}</section>\n"
        "</main>\n</body>\n</html>\n"
    )


def _row(each: Contestant, settings: Sequence[tuple[int, int]], *, on_frontier: bool) -> str:
    cells = [each.name, each.runtime, f"{each.bytes / 1e6:.2f}", f"{100 * each.entity_f1:.2f}"]
    cells += [f"{each.latency_ms[setting]:.2f}" for setting in settings]
    cells.append(f"{each.words_per_second:,.0f}")
    style = ' class="average"' if on_frontier else ""
    return f"<tr{style}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
