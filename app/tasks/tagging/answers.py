"""Tasks room: texts to the entities in them, as `--mode=predict` writes them; tagged corpora as plain texts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from app.config import PredictConfig
from app.data.sentence import Sentence
from app.tasks.tagging.labels import spans, tags_from_spans, types_from
from app.tasks.tagging.names import find_names, is_in_path
from app.text.words import Word, split_sentences, split_words

if TYPE_CHECKING:
    from app.tasks.light import LightModel
    from app.tasks.network import TaskModel
    from app.tasks.task import Answers

LONGEST_SENTENCE_WORDS = 512  # far more than any real sentence has; text without punctuation is cut there


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """One tag per word of a sentence, the posterior probability of each if asked for, and what they come from.

    Attributes:
        tags: the most probable ones.
        probabilities: float32 [words], or empty.
        emissions: logits float32 [words, labels].
    """

    tags: list[str]
    probabilities: np.ndarray
    emissions: np.ndarray


def tag_texts(
    texts: Sequence[str],
    predictor: Answers,
    *,
    split: bool = True,
    min_score: float = 0.0,
    non_names: Collection[str] = (),
) -> Iterator[dict]:
    """Entities of documents, one row per document, offsets in characters of the text as given.

    Args:
        texts: one document each, of any length.
        predictor: of the model to use.
        split: split documents into sentences; off, a document is one sentence.
        min_score: entities below it are left out.
        non_names: types that need be no names, see `names.find_names`.

    Yields:
        `{"text", "entities": [{"start", "end", "label", "text", "score"}]}`; the score is the smallest posterior
        probability among the tags of the entity's words.
    """
    rows = [split_sentences(text) if split else [split_words(text)] for text in texts]
    rows = [[part for words in sentences for part in _parts(words)] for sentences in rows]
    flat = [
        Sentence(tuple(text[word.start : word.end] for word in words), (), number)
        for number, (text, sentences) in enumerate(zip(texts, rows, strict=True))
        for words in sentences
    ]
    tagged = predictor.answer(flat, probabilities=True)
    for text, sentences in zip(texts, rows, strict=True):
        entities: list[dict] = []
        for words, found in zip(sentences, islice(tagged, len(sentences)), strict=True):
            entities.extend(_entities(text, words, found, non_names))
        yield {"text": text, "entities": [entity for entity in entities if entity["score"] >= min_score]}


def find_non_names(model: TaskModel | LightModel, config: PredictConfig) -> tuple[str, ...]:
    """Entity types that need be no names: those that the training corpus shows, or all."""
    known = tuple(model.facts.get("non_name_types", ()))
    return known if config.drop_non_names else tuple(types_from(model.labels))


def _parts(words: list[Word]) -> Iterator[list[Word]]:
    """A sentence in runs of bounded length: decoding takes as many steps as the longest sentence has words."""
    return (words[at : at + LONGEST_SENTENCE_WORDS] for at in range(0, len(words), LONGEST_SENTENCE_WORDS))


def _entities(text: str, words: list[Word], found: TaggedSentence, non_names: Collection[str]) -> Iterator[dict]:
    spelled = [text[word.start : word.end] for word in words]
    for name in find_names(spelled, found.tags, non_names):
        start, end = words[name.first].start, words[name.last - 1].end
        if name.label not in non_names and is_in_path(text, start, end):
            continue
        score = round(float(found.probabilities[name.sure_first : name.sure_last].min()), 4)
        yield {"start": start, "end": end, "label": name.label, "text": text[start:end], "score": min(score, 1.0)}


# Entities that a person marked in a text, as sentences to learn from.


def read_entities(text: str, entities: Sequence[Mapping[str, Any]], *, number: int) -> list[Sentence]:
    """A text with its entities by character, as `tag_texts` gives them, as tagged sentences of one document.

    Words are those of `tag_texts`. A word that an entity covers in part is part of it; sentences that an entity goes
    across are one sentence, unless that has too many words to be tagged at once.

    Args:
        text: as it was given to the model.
        entities: {"start", "end", "label"}, the end excluded.
        number: of the document.

    Raises:
        ValueError: an entity holds no word, or two share one.
    """
    sentences = split_sentences(text)
    words = [word for sentence in sentences for word in sentence]
    starts, ends = [word.start for word in words], [word.end for word in words]
    found: list[tuple[str, int, int]] = []  # type, first word, word after the last
    for entity in sorted(entities, key=lambda each: int(each["start"])):
        first, last = bisect_right(ends, entity["start"]), bisect_left(starts, entity["end"])
        if first >= last:
            raise ValueError(f"marks {text[entity['start'] : entity['end']]!r}, which holds no word")
        if found and found[-1][2] > first:
            raise ValueError(f"has two entities at the word {text[words[first].start : words[first].end]!r}")
        found.append((entity["label"], first, last))
    tags = tags_from_spans(found, len(words))
    crossed = {place for _, first, last in found for place in range(first + 1, last)}
    made, at = [], 0
    for place in [*accumulate(map(len, sentences))]:
        if place in crossed:
            continue
        for begin in range(at, place, LONGEST_SENTENCE_WORDS):
            part = slice(begin, min(begin + LONGEST_SENTENCE_WORDS, place))
            inside = spans(tags[part])
            spelled = tuple(text[word.start : word.end] for word in words[part])
            made.append(Sentence(spelled, tags_from_spans(inside, len(spelled)), number))
        at = place
    return made


# Tagged corpora read as plain text, to score models that must find the words themselves.


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
