"""Entities that other tools give by offsets, on the words of a text as this program splits it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from app.config import InputError
from app.feedback.correction import check_entities
from app.text.words import Word, split_words

_BLANKS = re.compile(r"\s+")


class Span(NamedTuple):
    """An entity as a file has it.

    Attributes:
        start: offset of its first character, in whatever unit the file counts.
        end: offset after its last.
        label: its type.
        said: the text that the file says it has; None if it does not say.
    """

    start: Any
    end: Any
    label: Any
    said: Any = None


def place_entities(
    text: str, spans: Sequence[Span], *, labels: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Entities on whole words, {"start", "end", "label"} in the order of the text.

    Offsets count characters (Unicode code points). Where the text has characters beyond U+FFFF or CRLF line ends, other
    ways to count are tried too: UTF-16 units, as JavaScript counts, and a CRLF as one. The first one counts in which
    every entity has the text that the file says it has; if the file says none, in which every entity begins and ends
    where words do; else characters.

    Args:
        text: the text.
        spans: its entities. Blanks around one are left out, a word that one covers in part is taken whole, and the same
            entity twice is one.
        labels: those that are known; None = any.

    Raises:
        InputError: an entity is outside the text, covers no word, overlaps another, has an unknown label, or has
            another text than the file says.
    """
    words = split_words(text)
    placed = _in_characters(text, words, spans)
    for each in placed:
        if not 0 <= each.start < each.end <= len(text):
            raise InputError(f"{each.label} at {each.start} to {each.end} is outside the text, or empty")
    entities = [{"start": each.start, "end": each.end, "label": each.label} for each in placed]
    return check_entities(text, entities, labels=labels, name="the text")


def snap_entities(text: str, entities: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entities {"start", "end", "label"}, offsets in characters, on whole words; see `place_entities`."""
    return check_entities(text, list(entities), name="the text")


def _in_characters(text: str, words: Sequence[Word], spans: Sequence[Span]) -> list[Span]:
    """The spans with offsets in characters, whatever unit they count."""
    for each in spans:
        for name, offset in (("start", each.start), ("end", each.end)):
            if not isinstance(offset, int) or isinstance(offset, bool):
                raise InputError(f"{name} of an entity must be a whole number, received {offset!r}")
        if not isinstance(each.label, str):
            raise InputError(f"the label of an entity must be a text, received {each.label!r}")
        if each.said is not None and not isinstance(each.said, str):
            raise InputError(f"the text of an entity must be a text, received {each.said!r}")
    starts, ends = {word.start for word in words}, {word.end for word in words}
    says = any(each.said is not None for each in spans)
    for place in _units(text):
        found = [each._replace(start=place(each.start), end=place(each.end)) for each in spans]
        if any(each.start is None or each.end is None for each in found):
            continue
        if says and all(each.said is None or _alike(text[each.start : each.end], each.said) for each in found):
            return found
        if not says and all(each.start in starts and each.end in ends for each in found):
            return found
    for each in spans:
        if each.start >= each.end:
            raise InputError(f"{each.label} at {each.start} to {each.end} is empty: the end must be after the start")
        if not 0 <= each.start < each.end <= len(text):
            raise InputError(
                f"{each.label} at {each.start} to {each.end} is outside the text, which has {len(text)} characters"
            )
        if each.said is not None and not _alike(text[each.start : each.end], each.said):
            raise InputError(
                f"{each.label} at {each.start} to {each.end} is {_short(text[each.start : each.end])} in the text, but "
                f"{_short(each.said)} in the file"
            )
    return list(spans)


def _units(text: str) -> Iterator[Callable[[int], int | None]]:
    """For each way to count: the character of an offset; None for an offset that is none."""
    yield lambda offset: offset if 0 <= offset <= len(text) else None
    astral, folded = not text.isascii() and max(text) > "\uffff", "\r\n" in text
    for wide in (True, False):
        for crlf in (False, True):
            if (wide or crlf) and (astral or not wide) and (folded or not crlf):
                yield _places(text, wide=wide, crlf=crlf).get


def _places(text: str, *, wide: bool, crlf: bool) -> dict[int, int]:
    sizes = (
        0 if crlf and letter == "\r" and text[i + 1 : i + 2] == "\n" else 1 + (wide and letter > "\uffff")
        for i, letter in enumerate(text)
    )
    return {offset: i for i, offset in enumerate(accumulate(sizes, initial=0))}


def _alike(text: str, said: str) -> bool:
    """Whether a text is what a file says; Label Studio writes line ends as a backslash and an n."""
    return text == said or _plain(text) in (_plain(said), _plain(said.replace("\\n", "\n")))


def _plain(text: str) -> str:
    return _BLANKS.sub(" ", text).strip()


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
