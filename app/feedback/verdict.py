"""Feedback room: whether an update may go live, and what it changed, answer by answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.config.update import UpdateConfig
from app.evaluation.gate import Loss, compute_loss
from app.evaluation.report_page import MAX_EXAMPLES, Opening
from app.run.screen import count_of
from app.tasks.network import TaskModel
from app.tasks.report import Segment
from app.tasks.task import Scored, Task

TEMPLATES = Path(__file__).parent / "templates"
KINDS = ("worse", "better", "otherwise wrong")
_SHOWN_IN_TEXT = 10  # changes of a kind of a part


@dataclass(frozen=True)
class Part:
    """The same examples as two models answer them.

    Attributes:
        name: in `metrics.json` after `update/`; title: in words.
        texts: how many; of the corrections, a text may be several examples.
        before: headline of the model that is live, 0 to 1; after: that of the update.
        loss: of the update against the model that is live, in points of 100, with its interval.
    """

    name: str
    title: str
    texts: int
    before: float
    after: float
    loss: Loss

    @property
    def gain(self) -> tuple[float, float, float]:
        """Points gained, and both ends of the interval."""
        return -self.loss.value + 0.0, -self.loss.high + 0.0, -self.loss.low + 0.0

    def record(self) -> dict[str, Any]:
        """What `update.json` holds of it."""
        gained, low, high = (round(each, 4) for each in self.gain)
        return {
            "texts": self.texts,
            "before": self.before,
            "after": self.after,
            "points_gained": gained,
            "interval": [low, high],
        }

    def metrics(self, headline: str) -> dict[str, float]:
        gained, low, high = self.gain
        return {
            f"update/{self.name}/{headline}_before": self.before,
            f"update/{self.name}/{headline}": self.after,
            f"update/{self.name}/points_gained": gained,
            f"update/{self.name}/points_gained_low": low,
            f"update/{self.name}/points_gained_high": high,
            f"update/{self.name}/texts": self.texts,
        }

    def cells(self) -> tuple[str, ...]:
        gained, low, high = self.gain
        interval = f"{low:+.2f} to {high:+.2f}"
        return self.title, f"{self.before:.4f}", f"{self.after:.4f}", f"{gained:+.2f}", interval, f"{self.texts:,}"


def compare(
    task: Task, before: Scored, after: Scored, *, name: str, title: str, confidence: float, owners: Sequence[int] = ()
) -> Part:
    """Two models on the same examples.

    Args:
        task: whose headline is compared.
        before: of the model that is live.
        after: of the update.
        name: of the part.
        title: of it, in words.
        confidence: of the interval.
        owners: the text, from 0, that each example is a part of; empty = each is a text of its own.
    """
    old, new = (_by_text(each.counts, owners) for each in (before, after))
    loss = compute_loss(old, new, lambda sums: 100 * task.headline_of(sums), confidence=confidence)
    return Part(name, title, len(old), before.headline, after.headline, loss)


def _by_text(counts: np.ndarray, owners: Sequence[int]) -> np.ndarray:
    """Counts [examples, columns] summed over the examples of each text, [texts, columns]."""
    if not len(owners):
        return counts
    summed = np.zeros((max(owners) + 1, counts.shape[1]), counts.dtype)
    np.add.at(summed, np.asarray(owners), counts)
    return summed


@dataclass(frozen=True)
class Verdict:
    """Whether an update goes live.

    Attributes:
        reasons: why not, a sentence each; empty: it passed.
        notes: what was too little to tell.
        parts: that were compared; those that decide are first.
    """

    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def passed(self) -> bool:
        return not self.reasons

    def record(self) -> dict[str, Any]:
        """What `update.json` holds of it."""
        return {
            "passed": self.passed,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "parts": {part.name: part.record() for part in self.parts},
        }


def decide(old: Part, held_out: Part | None, others: Iterable[Part], config: UpdateConfig) -> Verdict:
    """An update passes if it is better on corrections it has not learnt, and no worse on what could be done before.

    No worse: it loses at most `max_f1_loss` points on the old corpus, or chance explains the loss (its interval holds
    0). Better: the interval of the gain on the corrections held out lies above 0. With fewer than `min_held_out` of
    them nothing can be told, which is not better. `require_better=false` asks only that they do not get worse.

    Args:
        old: the corpus that the run was scored on before.
        held_out: the corrections held out; None without any.
        others: parts that decide nothing.
        config: what is allowed.
    """
    reasons, notes = [], []
    share = f"{100 * config.confidence:g} %"
    gained, low, high = old.gain
    interval = f"{share} interval {low:+.2f} to {high:+.2f}"
    if old.loss.value > config.max_f1_loss and old.loss.exceeds(0):
        reasons.append(
            f"it loses {-gained:.2f} points on {old.title} ({interval}), update.max_f1_loss allows "
            f"{config.max_f1_loss:g}"
        )
    elif old.loss.may_exceed(config.max_f1_loss):
        notes.append(
            f"{old.title} is too small to rule out that more than update.max_f1_loss={config.max_f1_loss:g} points are "
            f"lost ({gained:+.2f}, {interval})"
        )
    texts = held_out.texts if held_out else 0
    if texts < config.min_held_out:
        few = (
            f"{count_of(texts, 'corrected text')} held out {'is' if texts == 1 else 'are'} too few to tell whether it "
            f"is better (update.min_held_out={config.min_held_out})"
        )
        remedy = "correct more answers, or do without that proof by update.require_better=false"
        (reasons if config.require_better else notes).append(f"{few}; {remedy}" if config.require_better else few)
    if held_out:
        gained, low, high = held_out.gain
        interval = f"{share} interval {low:+.2f} to {high:+.2f}"
        if held_out.loss.value > 0:
            reasons.append(f"it loses {-gained:.2f} points on {held_out.title} ({interval})")
        elif texts >= config.min_held_out and low <= 0:
            chance = f"its gain of {gained:.2f} points on {held_out.title} may be chance ({interval})"
            if config.require_better:
                reasons.append(f"{chance}: more corrections would tell, update.require_better=false does without")
            else:
                notes.append(chance)
    return Verdict(tuple(reasons), tuple(notes), tuple(part for part in (held_out, old, *others) if part))


# What changed.


@dataclass(frozen=True)
class Change:
    """An example that the update answers otherwise.

    Attributes:
        part: title of what it belongs to.
        where: its number there.
        kind: one of `KINDS`.
        lines: (name, what stands there): before, after and right; the text first where answers do not show it.
    """

    part: str
    where: str
    kind: str
    lines: tuple[tuple[str, tuple[Segment, ...]], ...]


def find_changes(before: TaskModel, after: TaskModel, old: Scored, new: Scored, *, title: str) -> list[Change]:
    """The examples that two models answer otherwise, in the order of the corpus; `title` of the part."""
    task, found = after.task, []
    headlines = [task.headline_of(scored.counts) for scored in (old, new)]
    for number, example in enumerate(new.examples):
        said = task.show(before, example, old.answers[number]), task.show(after, example, new.answers[number])
        if said[0] == said[1]:
            continue
        right = task.show(after, example)
        was, now = (float(each[number]) for each in headlines)
        worse, better = said[0] == right or now < was, said[1] == right or now > was
        kind = KINDS[0] if worse else KINDS[1] if better else KINDS[2]
        text = () if task.labels_words else (("text", (Segment(" ".join(task.words_of(example))),)),)
        lines = (*text, ("before", said[0]), ("after", said[1]), ("right", right))
        found.append(Change(title, f"{title}, {task.example.removesuffix('s')} {number + 1:,}", kind, lines))
    return found


def describe(verdict: Verdict, changes: Sequence[Change], *, title: str, sizes: str) -> Opening:
    """What stands at the top of `report.txt` and `report.html`."""
    columns = ("", "before", "after", "points", "interval", "texts")
    rows = [part.cells() for part in verdict.parts]
    counted = [
        (part.title, [(kind, sum(each.kind == kind and each.part == part.title for each in changes)) for kind in KINDS])
        for part in verdict.parts
    ]
    kept = [change for kind in KINDS for change in changes if change.kind == kind]
    said = "passed" if verdict.passed else "refused"
    lines = [f"{title}: {said}", sizes, "", *_aligned([columns, *rows]), ""]
    lines += [*(f"refused: {reason}" for reason in verdict.reasons), *(f"note: {note}" for note in verdict.notes)]
    lines += ["", "What changed"]
    lines += [f"  {name}: {', '.join(f'{count:,} {kind}' for kind, count in found)}" for name, found in counted]
    for part in verdict.parts:
        for kind in KINDS:
            there = [change for change in kept if (change.part, change.kind) == (part.title, kind)]
            for change in there[:_SHOWN_IN_TEXT]:
                lines += ["", f"{kind}: {change.where}", *(f"  {n:<7} {_written(each)}" for n, each in change.lines)]
            if len(there) > _SHOWN_IN_TEXT:
                lines += ["", f"{kind}: and {len(there) - _SHOWN_IN_TEXT:,} more of {part.title}"]
    values = {
        "verdict": verdict,
        "verdict_title": title,
        "sizes": sizes,
        "comparison_columns": columns,
        "comparison_rows": rows,
        "counted": counted,
        "changes": kept[:MAX_EXAMPLES],
        "changed": len(changes),
    }
    return Opening("\n".join(lines) + "\n\n\n", "update.html", TEMPLATES, values)


def _written(segments: Sequence[Segment]) -> str:
    def write(segment: Segment) -> str:
        mark = " (wrong)" if segment.wrong else ""
        return f"[{segment.text} {segment.label}{mark}]" if segment.label else f"{segment.text}{mark}"

    return " ".join("".join(map(write, segments)).split())


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
