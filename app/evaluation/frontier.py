"""Evaluation room: size, entity F1 and speed of exported models, and which of them nothing else beats."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.evaluation.pages import render_template

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


def text_table(
    contestants: Sequence[Contestant], *, best: set[str], title: str, notes: Sequence[str], unit: str = "words"
) -> str:
    """A table for people: one line per contestant, `*` where it is on the frontier; then the notes."""
    settings = sorted(contestants[0].latency_ms, key=lambda setting: (setting[1], setting[0]))
    wide = max(len(each.name) for each in contestants) + 2
    runtime = max(len(each.runtime) for each in contestants) + 2
    head = f"  {'':<{wide}}{'':<{runtime}}{'MB':>8}{'F1':>8}"
    threads = sorted({count for _, count in settings})
    above = " " * len(head) + "".join(
        f"{f'ms, {count} thread' + 's' * (count > 1):>{9 * sum(t == count for _, t in settings)}}" for count in threads
    )
    head += "".join(f"{pieces:>9}" for pieces, _ in settings) + f"{f'{unit}/s':>10}{'batch':>7}"
    lines = [title, "", above, head]
    for each in contestants:
        mark = "*" if each.name in best else " "
        latencies = "".join(f"{each.latency_ms[setting]:>9.2f}" for setting in settings)
        lines.append(
            f"{mark} {each.name:<{wide}}{each.runtime:<{runtime}}{each.bytes / 1e6:>8.2f}{100 * each.f1:>8.2f}"
            f"{latencies}{each.words_per_second:>10,.0f}{each.batch_size:>7}"
        )
    return "\n".join([*lines, "", *notes]) + "\n"


def frontier_page(
    contestants: Sequence[Contestant],
    *,
    picture: bytes,
    best: set[str],
    title: str,
    notes: Sequence[str],
    unit: str = "words",
) -> str:
    """`frontier.html`: the picture and the numbers on one page that needs no network.

    Args:
        contestants: what was measured.
        picture: a PNG.
        best: names of those on the frontier, whose lines are bold.
        title: of the page.
        notes: sentences below the table.
        unit: what speed is counted in.
    """
    settings = sorted(contestants[0].latency_ms, key=lambda setting: (setting[1], setting[0]))
    latencies = [f"{pieces} pieces, {threads} thr." for pieces, threads in settings]
    return render_template(
        "frontier.html",
        title=title,
        picture=base64.b64encode(picture).decode("ascii"),
        columns=["", "runtime", "MB", "F1", *latencies, f"{unit}/s"],
        rows=[(_cells(each, settings), each.name in best) for each in contestants],
        notes=notes,
    )


def _cells(each: Contestant, settings: Sequence[tuple[int, int]]) -> list[str]:
    cells = [each.name, each.runtime, f"{each.bytes / 1e6:.2f}", f"{100 * each.f1:.2f}"]
    cells += [f"{each.latency_ms[setting]:.2f}" for setting in settings]
    return [*cells, f"{each.words_per_second:,.0f}"]
