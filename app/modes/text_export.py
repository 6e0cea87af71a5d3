"""Modes room: a tagger put together as a TFLite file that takes raw strings, and its score on a corpus as text."""

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby, islice
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from app.config import Config
from app.data.encoding import Encoder
from app.data.graph_text import GraphTagger
from app.data.labels import spans
from app.data.sentence import Sentence
from app.evaluation.predictor import Predictor
from app.export.graph import TaggingModule
from app.export.text_tflite import TextModel, convert_text_tagger
from app.models.graph_decoding import GraphDecoder
from app.models.tagger import Tagger
from app.modes.predict import LONGEST_SENTENCE_WORDS, find_non_names, tag_texts

TEXTS_AT_A_TIME = 16
Entity = tuple[str, int, int]  # label, first character, end
Item = TypeVar("Item")
# What `model.json` beside the file says about it.
TEXT_SIGNATURE: dict[str, Any] = {
    "inputs": {"text": {"type": "string", "shape": ["batch"], "meaning": "texts of any length, UTF-8"}},
    "outputs": {
        "count": {"type": "int32", "shape": ["batch"], "meaning": "entities of each text"},
        "label": {"type": "string", "shape": ["batch", "most"], "meaning": "type; empty after the last entity"},
        "start": {"type": "int32", "shape": ["batch", "most"], "meaning": "first character"},
        "end": {"type": "int32", "shape": ["batch", "most"], "meaning": "one after the last character"},
        "score": {"type": "float32", "shape": ["batch", "most"], "meaning": "probability of its least sure word"},
    },
}


def write_text_tflite(tagger: Tagger, encoder: Encoder, config: Config) -> bytes:
    """The content of the file; it answers as `--mode=predict` does, but for the rounding to int8."""
    boundary_ids = (encoder.pieces.start_id, encoder.pieces.end_id)
    module = TaggingModule(tagger, table="int8", block=config.export.block_size, boundary_ids=boundary_ids)
    module.texts = GraphTagger(
        encoder,
        lambda rows, places: tf.gather_nd(
            module.compute_logits(rows["token_ids"], rows["shape_ids"], rows["padding_mask"]), places
        ),
        GraphDecoder(tagger.head.decoding_scores()),
        split_sentences=config.predict.split_sentences,
        longest_sentence=LONGEST_SENTENCE_WORDS,
        non_names=find_non_names(tagger, config.predict),
    )
    return convert_text_tagger(module.texts, module)


def score_text_tflite(
    content: bytes, sentences: Iterable[Sentence], predictor: Predictor, *, non_names: Collection[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Entities found in a corpus read as plain text, whose words the models must find: by the file, by the float model.

    An entity counts when label, first and last character are right; both read the same texts.

    Args:
        content: of the file.
        sentences: of the corpus.
        predictor: of the float model.
        non_names: entity types that need be no names, as in the file.

    Returns:
        right, predicted and gold entities of each line (a sentence of the corpus), int64 [lines, 3], of either.
    """
    model = TextModel(content, threads=os.cpu_count() or 1)
    ours: list[tuple[int, int, int]] = []
    floats: list[tuple[int, int, int]] = []
    for part in _batches(as_texts(sentences), TEXTS_AT_A_TIME):
        texts, gold = zip(*part, strict=True)
        plains = tag_texts(list(texts), predictor, non_names=non_names)
        answers = zip(model.tag(list(texts)), plains, strict=True)
        for text, expected, (found, plain) in zip(texts, gold, answers, strict=True):
            ours += _count_by_line(text, expected, _entities(found))
            floats += _count_by_line(text, expected, _entities(plain["entities"]))
    return np.array(ours, np.int64), np.array(floats, np.int64)


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


def _count_by_line(text: str, gold: set[Entity], found: set[Entity]) -> list[tuple[int, int, int]]:
    """Right, predicted and gold entities that begin in each line of a text."""
    ends = [at for at, character in enumerate(text) if character == "\n"]

    def counted(entities: set[Entity]) -> Counter[int]:
        return Counter(bisect_left(ends, first) for _, first, _ in entities)

    right, predicted, support = counted(gold & found), counted(found), counted(gold)
    return [(right[line], predicted[line], support[line]) for line in range(len(ends))]


def _entities(rows: Iterable[dict[str, Any]]) -> set[Entity]:
    return {(row["label"], row["start"], row["end"]) for row in rows}


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while part := list(islice(items, size)):
        yield part
