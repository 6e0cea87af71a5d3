"""``report.html``: one self-contained page for a reader, with charts and example errors.

No script, no network, nothing but the page itself; the choice among error kinds is a row of radio
buttons and CSS. The markup is well-formed XML, so that a test can parse it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.evaluation import plots
from app.evaluation.html_style import CSS
from app.tasks.tagging.errors import KINDS, ErrorCounts
from app.tasks.tagging.scores import EntityScores, Row, Scores

MAX_EXAMPLES = 200
CONFUSION_CAPTION = "Entities paired by overlap; the darker, the larger the part of its row (the gold type)"
_CONTEXT_WORDS = 25  # shown on either side of the errors of a long sentence
_MAX_WORDS = 150
# Characters that XML cannot hold, lone surrogates among them.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def html_report(
    *,
    title: str,
    scores: Scores,
    errors: ErrorCounts,
    examples: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    config_text: str,
    environment: Mapping[str, Any],
    notes: Sequence[str] = (),
    words_per_second: float | None = None,
) -> str:
    """The page as a string.

    Args:
        title: heading, for example the run and the split.
        scores: from ``compute_scores``.
        errors: from ``count_errors`` on the same tags.
        examples: rows of ``error_rows``; above ``MAX_EXAMPLES`` an even selection is shown.
        history: rows of ``history.jsonl``; without usable rows the learning curve is left out.
        config_text: the resolved configuration (``config.yaml``).
        environment: what ``environment.json`` holds.
        notes: lines under the heading.
        words_per_second: speed of the evaluation, shown when given.
    """
    size = f"{scores.words:,} words, {scores.sentences:,} sentences, {scores.strict.micro.support:,} entities"
    lines = "".join(f'<p class="quiet">{_text(line)}</p>' for line in (size, *notes))
    body = [
        f"<header><h1>{_text(title)}</h1>{lines}</header>",
        _tiles(scores, words_per_second),
        '<div class="grid">',
        _card("Learning curve", "At the end of each epoch", plots.learning_curve(history)),
        _card("Entity types", "Exact spans", plots.type_bars(scores)),
        _card("Confusion matrix", CONFUSION_CAPTION, plots.confusion_matrix(errors)),
        _card("Kinds of error", _wrong_sentences(errors), plots.error_kinds(errors)),
        "</div>",
        f'<div class="grid">{_token_table(scores)}',
        f"<div>{_entity_table(scores.strict)}{_entity_table(scores.conlleval)}</div></div>",
        _examples(examples, types=list(errors.by_type)),
        _folded(config_text, environment),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{_text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _tiles(scores: Scores, words_per_second: float | None) -> str:
    micro = scores.strict.micro
    tiles = [
        ("entity F1", f"{micro.f1:.4f}"),
        ("precision", f"{micro.precision:.4f}"),
        ("recall", f"{micro.recall:.4f}"),
        ("conlleval F1", f"{scores.conlleval.micro.f1:.4f}"),
        ("token macro-F1", f"{scores.token.macro.f1:.4f}"),
        ("token accuracy", f"{scores.token.accuracy:.4f}"),
    ]
    if words_per_second is not None:
        tiles.append(("words/s", f"{words_per_second:,.0f}"))
    cells = [
        f'<div class="tile{"" if index else " first"}"><b>{value}</b><span>{name}</span></div>'
        for index, (name, value) in enumerate(tiles)
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def _card(heading: str, caption: str, content: str) -> str:
    if not content:
        return ""
    return f'<section class="card"><h2>{heading}</h2><p class="quiet">{caption}</p>{content}</section>'


def _wrong_sentences(errors: ErrorCounts) -> str:
    return f"{errors.wrong_sentences:,} of {errors.sentences:,} sentences have at least one"


def _token_table(scores: Scores) -> str:
    token = scores.token
    accuracy = (
        f'<tr class="average"><td>accuracy</td><td></td><td></td><td>{token.accuracy:.3f}</td>'
        f"<td>{token.macro.support:,}</td></tr>"
    )
    table = _table("tag", token.tags, (token.macro, token.weighted), accuracy)
    return _card("Token level", "One tag per word, O included", table)


def _entity_table(entity: EntityScores) -> str:
    table = _table("type", entity.types, (entity.micro, entity.macro))
    return _card("Entity level", f"Exact spans, {entity.convention}", table)


def _table(first: str, rows: Sequence[Row], averages: Sequence[Row], last: str = "") -> str:
    columns = "".join(f"<th>{name}</th>" for name in (first, "precision", "recall", "F1", "support"))
    lines = [_table_row(row, "") for row in rows]
    lines += [_table_row(row, "average" if index else "average top") for index, row in enumerate(averages)]
    body = "".join(lines) + last
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'


def _table_row(row: Row, style: str) -> str:
    numbers = "".join(f"<td>{value:.3f}</td>" for value in (row.precision, row.recall, row.f1))
    opening = f'<tr class="{style}">' if style else "<tr>"
    return f"{opening}<td>{_text(row.name)}</td>{numbers}<td>{row.support:,}</td></tr>"


def _examples(examples: Sequence[Mapping[str, Any]], *, types: Sequence[str]) -> str:
    """The list of wrong sentences; a radio button for each kind hides the others by CSS."""
    if not examples:
        return _card("Errors", "None: every entity is right.", "<p></p>")
    shown = list(examples)
    if len(shown) > MAX_EXAMPLES:
        shown = [examples[index * len(examples) // MAX_EXAMPLES] for index in range(MAX_EXAMPLES)]
    present = [kind for kind in KINDS if any(_has_kind(example, kind) for example in shown)]
    rules = "".join(
        f"#errors:has(#pick-{_slug(kind)}:checked) .example:not(.{_slug(kind)}) {{ display: none; }}\n"
        for kind in present
    )
    buttons = [_button("all", f"all {len(shown)}", checked=True)]
    buttons += [
        _button(_slug(kind), f"{kind} {sum(_has_kind(example, kind) for example in shown)}", checked=False)
        for kind in present
    ]
    caption = f"{len(shown):,} of {len(examples):,} wrong sentences. Wrong spans are outlined."
    rows = "\n".join(_example(example, types) for example in shown)
    return (
        f'<section class="card" id="errors"><style>{rules}</style><h2>Errors, sentence by sentence</h2>'
        f'<p class="quiet">{caption}</p><div class="choices">{"".join(buttons)}</div>\n{rows}</section>'
    )


def _button(name: str, label: str, *, checked: bool) -> str:
    state = ' checked="checked"' if checked else ""
    box = f'<input type="radio" name="kind" id="pick-{name}"{state}/>'
    return f'{box}<label for="pick-{name}">{label}</label>'


def _example(example: Mapping[str, Any], types: Sequence[str]) -> str:
    kinds = list(dict.fromkeys(error["kind"] for error in example["errors"]))
    chips = "".join(f'<span class="kind">{_text(kind)}</span>' for kind in kinds)
    sides = []
    for side in ("gold", "predicted"):
        wrong = {(error[side]["start"], error[side]["end"]) for error in example["errors"] if error[side]}
        sides.append(
            f'<div class="line"><span class="quiet">{side}</span>'
            f'<span class="words" dir="auto">{_marked_words(example, side, wrong, types)}</span></div>'
        )
    where = f"sentence {example['sentence'] + 1:,}, document {example['document'] + 1:,}"
    classes = " ".join(map(_slug, kinds))
    head = f'<div class="where"><span class="quiet">{where}</span>{chips}</div>'
    return f'<article class="example {classes}">{head}{"".join(sides)}</article>'


def _marked_words(
    example: Mapping[str, Any], side: str, wrong: set[tuple[int, int]], types: Sequence[str]
) -> str:
    """The sentence with the spans of one side highlighted, cut around the errors when it is long."""
    first, last = _window(example)
    pieces = ["…"] if first else []
    place = first
    for span in example[side]:
        start, end = max(span["start"], first), min(span["end"], last)
        if start >= end:
            continue
        pieces += map(_text, example["words"][place:start])
        colour = types.index(span["label"]) % plots.TYPE_COLOURS if span["label"] in types else 0
        outline = ' class="wrong"' if (span["start"], span["end"]) in wrong else ""
        text = _text(" ".join(example["words"][start:end]))
        text += f"<small>{_text(span['label'])}</small>"
        pieces.append(f'<mark{outline} style="--type: var(--type-{colour})">{text}</mark>')
        place = end
    pieces += map(_text, example["words"][place:last])
    if last < len(example["words"]):
        pieces.append("…")
    return " ".join(pieces)


def _window(example: Mapping[str, Any]) -> tuple[int, int]:
    """First and last (exclusive) word to show."""
    spans = [error[side] for error in example["errors"] for side in ("gold", "predicted") if error[side]]
    first = max(0, min(span["start"] for span in spans) - _CONTEXT_WORDS)
    last = max(span["end"] for span in spans) + _CONTEXT_WORDS
    return first, min(last, first + _MAX_WORDS, len(example["words"]))


def _folded(config_text: str, environment: Mapping[str, Any]) -> str:
    details = json.dumps(environment, indent=2, ensure_ascii=False, default=str)
    return (
        '<section class="card"><h2>How it was made</h2>'
        f"{_hardware(environment)}"
        f"<details><summary>Configuration</summary><pre>{_text(config_text)}</pre></details>"
        f"<details><summary>Environment</summary><pre>{_text(details)}</pre></details></section>"
    )


def _hardware(environment: Mapping[str, Any]) -> str:
    """What the run was computed on, as far as `environment.json` (of any version) says."""
    rows = [
        (name, shown)
        for name, shown in (
            ("Processor", _processor(environment)),
            ("Memory", _gigabytes(environment.get("memory_bytes"))),
            ("Container", _container(environment.get("container") or {})),
            ("GPUs", _gpus(environment)),
        )
        if shown
    ]
    cells = "".join(f"<tr><th>{name}</th><td>{_text(shown)}</td></tr>" for name, shown in rows)
    return f'<table class="hardware"><tbody>{cells}</tbody></table>' if rows else ""


def _processor(environment: Mapping[str, Any]) -> str:
    cores = environment.get("usable_cores")
    flags = ", ".join(environment.get("cpu_flags") or ())
    parts = (environment.get("cpu"), f"{cores} of {environment.get('cores')} cores usable" if cores else "", flags)
    return "; ".join(str(part) for part in parts if part)


def _container(limits: Mapping[str, Any]) -> str:
    cores = f"{limits['cores']:g} cores" if "cores" in limits else ""
    return ", ".join(part for part in (_gigabytes(limits.get("memory_bytes")), cores) if part)


def _gigabytes(size: Any) -> str:
    return f"{size / 1e9:,.1f} GB" if size else ""


def _gpus(environment: Mapping[str, Any]) -> str:
    if "gpus" not in environment:  # nobody has looked
        return ""
    names = [" ".join(filter(None, (gpu.get("name"), gpu.get("memory")))) for gpu in environment["gpus"]]
    versions = (("driver", environment.get("nvidia_driver")), ("CUDA", environment.get("cuda")))
    return "; ".join([*names, *(f"{name} {version}" for name, version in versions if version)]) or "none"


def _has_kind(example: Mapping[str, Any], kind: str) -> bool:
    return any(error["kind"] == kind for error in example["errors"])


def _slug(kind: str) -> str:
    return kind.replace(" ", "-")


def _text(value: str) -> str:
    return html.escape(_UNPRINTABLE.sub("\ufffd", value))
