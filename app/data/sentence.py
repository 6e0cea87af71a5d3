"""Data room: the record every reader yields."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

DOCUMENT_MARK = "-DOCSTART-"
MAX_SENTENCE_WORDS = 10_000
_NOT_IN_COLUMNS = re.compile("[ \t\n\r]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a corpus.

    Attributes:
        words: the words, never empty strings.
        tags: one IOB2 tag per word (`O`, `B-PER`, `I-PER`), or `()` when there are none.
        document: number of the document it belongs to; counts up from 0 in corpus order.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    document: int


def words_fault(words: Sequence[str]) -> str:
    """Says why words cannot be a sentence of a corpus, or returns an empty string.

    They must be 1 to 10,000, and each must be able to stand in a column file.
    """
    if not 0 < len(words) <= MAX_SENTENCE_WORDS:
        return f"a sentence of {len(words):,} words, allowed are 1 to {MAX_SENTENCE_WORDS:,} words"
    for word in words:
        if not word or _NOT_IN_COLUMNS.search(word):
            return f"the word {word!r} is empty or holds a blank or line end"
        if word == DOCUMENT_MARK:
            return f"the word {word!r} is the mark that begins a document"
        if fault := surrogate_fault(word):
            return f"the word {word!r} {fault}"
    return ""


def surrogate_fault(text: str) -> str:
    """Says that a text cannot be written as UTF-8, or returns an empty string."""
    found = _SURROGATE.search(text)
    if found is None:
        return ""
    return (
        f"holds half of a surrogate pair (\\u{ord(found.group()):04x} at character {found.start() + 1}), which UTF-8 "
        "cannot write"
    )
