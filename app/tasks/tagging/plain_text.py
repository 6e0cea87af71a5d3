"""Tasks room: tagged corpora read as plain text, to score models that must find the words themselves."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from app.data.sentence import Sentence
from app.tasks.tagging.labels import spans

Entity = tuple[str, int, int]  # label, first character, end


def as_texts(sentences: Iterable[Sentence]) -> Iterator[tuple[str, set[Entity]]]:
    """Each document as a text, a line a sentence and a blank between words, with its entities by character."""
    for _, document in groupby(sentences, key=lambda sentence: sentence.document):
        text, entities = "", set()
        for sentence in document:
            starts, at = [], len(text)
            for word in sentence.words:
                starts.append(at)
                at += len(word) + 1
            for label, first, last in spans(sentence.tags):
                entities.add((label, starts[first], starts[last - 1] + len(sentence.words[last - 1])))
            text += " ".join(sentence.words) + "\n"
        yield text, entities


def count_by_line(text: str, gold: set[Entity], row: Mapping[str, Any]) -> list[Sequence[float]]:
    """Right, predicted and gold entities that begin in each line of a text.

    An entity counts when label, first and last character are right.

    Args:
        text: of `as_texts`.
        gold: its entities.
        row: of `tag_texts`.
    """
    ends = [at for at, character in enumerate(text) if character == "\n"]
    found = {(each["label"], each["start"], each["end"]) for each in row["entities"]}

    def counted(entities: set[Entity]) -> Counter[int]:
        return Counter(bisect_left(ends, first) for _, first, _ in entities)

    right, predicted, support = counted(gold & found), counted(found), counted(gold)
    return [(right[line], predicted[line], support[line]) for line in range(len(ends))]
