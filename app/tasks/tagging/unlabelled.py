"""Tasks room: running text without labels, as sentences to distil on."""

from collections.abc import Iterator, Sequence

from app.data.sentence import Sentence
from app.tasks.masked_lm.text_corpus import Source, plan_units, read_unit
from app.text.words import split_sentences

_UNIT_BYTES = 2**24
_LONGEST_SENTENCE_WORDS = 512  # text without punctuation is cut there
_LONGEST_DOCUMENT_WORDS = 10_000  # a document is held in memory; text without blank lines is cut there


def read_unlabelled(sources: Sequence[Source], *, limit_words: int = 0) -> Iterator[Sentence]:
    """Sentences without tags, in corpus order.

    Args:
        sources: from `find_sources`.
        limit_words: stop after so many words; 0 reads everything.
    """
    words_read = document = words_in_document = 0
    for unit in plan_units(sources, unit_bytes=_UNIT_BYTES):
        for line in read_unit(unit):
            if line is None or words_in_document > _LONGEST_DOCUMENT_WORDS:
                document, words_in_document = document + bool(words_in_document), 0
            for words in _sentences(line or ""):
                left = limit_words - words_read if limit_words else len(words)
                if left <= 0:
                    return
                yield Sentence(words[:left], (), document)
                words_read += len(words[:left])
                words_in_document += len(words)


def _sentences(line: str) -> Iterator[tuple[str, ...]]:
    for found in split_sentences(line):
        words = tuple(line[word.start : word.end] for word in found)
        for at in range(0, len(words), _LONGEST_SENTENCE_WORDS):
            yield words[at : at + _LONGEST_SENTENCE_WORDS]
