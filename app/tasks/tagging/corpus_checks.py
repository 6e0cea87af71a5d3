"""Tasks room: what is odd about corpora without being wrong on any line: labels, and text in two of them."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from app.config import InputError
from app.tasks.tagging.corpus import Corpus, CorpusSummary
from app.tasks.tagging.labels import look_alike

MANY_TYPES = 200
FEW_ENTITIES_EACH = 2  # so few on average, and many types: the labels are names or numbers of the entities themselves
SENTENCE_WORDS = 8  # shorter ones are often the same in unrelated texts
SHARED_PERCENT = 10  # of the sentences of a news corpus, up to seven are in another part of it


def check_types(summary: CorpusSummary) -> list[str]:
    """What a user should know about the labels of a training corpus, a sentence each.

    Raises:
        InputError: there are hundreds of types, and hardly two entities of each.
    """
    types, entities = len(summary.types), sum(summary.entities.values())
    found = []
    if types > MANY_TYPES:
        if entities < FEW_ENTITIES_EACH * types:
            raise InputError(
                f"{summary.source} has {types:,} entity types for {entities:,} entities "
                f"({', '.join(summary.types[:3])}, ...): they seem to be something else; data.tag_column says which "
                "column of a file has the tags"
            )
        found.append(f"{summary.source} has {types:,} entity types: are the tags in another column (data.tag_column)?")
    for _, group in groupby(sorted(summary.types, key=look_alike), key=look_alike):
        alike = list(group)
        if len(alike) > 1:
            found.append(
                f"{summary.source} has entity types that differ only in case or in how Unicode writes them: "
                f"{', '.join(map(ascii, alike))}; they are learnt as different types"
            )
    return found


def check_scored(summary: CorpusSummary) -> list[str]:
    """The same of a corpus that is scored."""
    if summary.entities:
        return []
    return [f"{summary.source} holds no entity: entity F1 on it says nothing"]


@dataclass(frozen=True)
class SharedText:
    """What a corpus has in common with the training corpus.

    Attributes:
        sentences: of at least 8 words that are in both, word for word.
        of_sentences: those in the corpus.
        documents: of several sentences that are in both as a whole.
    """

    sentences: int
    of_sentences: int
    documents: int

    @property
    def is_worth_a_warning(self) -> bool:
        return bool(self.documents) or 100 * self.sentences > SHARED_PERCENT * self.of_sentences


def find_shared_text(train: Corpus, others: Mapping[str, Corpus]) -> dict[str, SharedText]:
    """How much of other corpora is in the training corpus too, by their names. Reads every corpus once.

    Memory holds a digest of each sentence and document of the others.
    """
    digests = {name: Counter(_digests(corpus)) for name, corpus in others.items()}
    wanted = set().union(*digests.values())
    found = {each for each in _digests(train) if each in wanted}
    return {
        name: SharedText(
            sentences=sum(count for each, count in counts.items() if each in found and not each.document),
            of_sentences=sum(count for each, count in counts.items() if not each.document),
            documents=sum(count for each, count in counts.items() if each in found and each.document),
        )
        for name, counts in digests.items()
    }


class _Digest(NamedTuple):
    """Of a sentence, or of a document."""

    value: bytes
    document: bool


def _digests(corpus: Corpus) -> Iterator[_Digest]:
    """Those of long sentences, and of documents that have several sentences, one of them long."""
    for _, sentences in groupby(corpus.examples(), key=lambda sentence: sentence.document):
        document, count, any_long = hashlib.blake2b(digest_size=8), 0, False
        for sentence in sentences:
            text = "\n".join(sentence.words).encode()
            document.update(text + b"\n\n")
            count += 1
            if len(sentence.words) >= SENTENCE_WORDS:
                any_long = True
                yield _Digest(hashlib.blake2b(text, digest_size=8).digest(), False)
        if count > 1 and any_long:
            yield _Digest(document.digest(), True)


def describe_shared_text(found: Mapping[str, SharedText], sources: Mapping[str, str]) -> list[str]:
    """A sentence for each corpus that has too much in common with the training corpus."""
    return [
        f"{sources[name]}: {each.sentences:,} of {each.of_sentences:,} sentences of {SENTENCE_WORDS} words or more"
        f"{f' and {each.documents:,} whole document(s)' if each.documents else ''} are in the training corpus too, so "
        "scores on it are too good"
        for name, each in found.items()
        if each.is_worth_a_warning
    ]
