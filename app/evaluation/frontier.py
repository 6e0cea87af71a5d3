"""Evaluation room: size, entity F1 and speed of exported models, and which of them nothing else beats."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from app.evaluation.html_style import CSS

TFLITE, ONNX = "LiteRT", "ONNX Runtime"


@dataclass(frozen=True)
class Contestant:
    """What was measured of one model in one runtime.

    Attributes:
        run: name of the run the weights are of.
        variant: precision, or another word for the file.
        runtime: what computed.
        bytes: size of the file or files.
        f1: the headline of the task, 0 to 1.
        latency_ms: {(pieces, threads): milliseconds} for the logits of one text.
        words_per_second: logits of the corpus, tokenized beforehand.
        batch_size: rows in a batch at which they are fastest.
        identity: checksum of the model.
    """

    run: str
    variant: str
    runtime: str
    bytes: int
    f1: float
    latency_ms: dict[tuple[int, int], float]
    words_per_second: float
    batch_size: int
    identity: str

    @property
    def name(self) -> str:
        return f"{self.run} {self.variant}"


def find_frontier(contestants: Sequence[Contestant], *, setting: tuple[int, int]) -> set[str]:
    """Names of those that no other one equals or beats in size, entity F1 and latency together.

    Args:
        contestants: all of them.
        setting: (pieces, threads) whose latency counts.
    """

    def costs(each: Contestant) -> tuple[float, float, float]:
        return each.bytes, -each.f1, each.latency_ms[setting]

    def beats(one: Contestant, other: Contestant) -> bool:
        pairs = list(zip(costs(one), costs(other), strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    return {each.name for each in contestants if not any(beats(other, each) for other in contestants)}


def within(contestants: Iterable[Contestant], *, float_f1: float, points: float) -> list[Contestant]:
    """The TFLite files whose F1 is at most so many points of 100 below the float model's."""
    return [
        each
        for each in contestants
        if each.runtime == TFLITE and round(100 * (float_f1 - each.f1), 6) <= points
    ]


def text_table(contestants: Sequence[Contestant], *, best: set[str], title: str, notes: Sequence[str]) -> str:
    """A table for people: one line per contestant, `*` where it is on the frontier; then the notes."""
    settings = sorted(contestants[0].latency_ms, key=lambda setting: (setting[1], setting[0]))
    wide = max(len(each.name) for each in contestants) + 2
    runtime = max(len(each.runtime) for each in contestants) + 2
    head = f"  {'':<{wide}}{'':<{runtime}}{'MB':>8}{'F1':>8}"
    threads = sorted({count for _, count in settings})
    above = " " * len(head) + "".join(
        f"{f'ms, {count} thread' + 's' * (count > 1):>{9 * sum(t == count for _, t in settings)}}" for count in threads
    )
    head += "".join(f"{pieces:>9}" for pieces, _ in settings) + f"{'words/s':>10}{'batch':>7}"
    lines = [title, "", above, head]
    for each in contestants:
        mark = "*" if each.name in best else " "
        latencies = "".join(f"{each.latency_ms[setting]:>9.2f}" for setting in settings)
        lines.append(
            f"{mark} {each.name:<{wide}}{each.runtime:<{runtime}}{each.bytes / 1e6:>8.2f}{100 * each.f1:>8.2f}"
            f"{latencies}{each.words_per_second:>10,.0f}{each.batch_size:>7}"
        )
    return "\n".join([*lines, "", *notes]) + "\n"


# `frontier.html`, the picture and the numbers of a frontier on one page that needs no network.


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
    cells = [each.name, each.runtime, f"{each.bytes / 1e6:.2f}", f"{100 * each.f1:.2f}"]
    cells += [f"{each.latency_ms[setting]:.2f}" for setting in settings]
    cells.append(f"{each.words_per_second:,.0f}")
    style = ' class="average"' if on_frontier else ""
    return f"<tr{style}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
