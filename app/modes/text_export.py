"""Modes room: a tagger put together as a TFLite file that takes raw strings, and its score on a corpus as text."""

import os
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby, islice
from typing import Any, TypeVar

import tensorflow as tf

from app.config import Config
from app.data.encoding import Encoder
from app.data.graph_text import GraphTagger
from app.data.labels import spans
from app.data.sentence import Sentence
from app.evaluation.predictor import Predictor
from app.evaluation.scores import score_counts
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
) -> tuple[float, float]:
    """Entity F1 on a corpus read as plain text, whose words the models must find: of the file, of the float model.

    An entity counts when label, first and last character are right; both read the same texts.

    Args:
        content: of the file.
        sentences: of the corpus.
        predictor: of the float model.
        non_names: entity types that need be no names, as in the file.
    """
    model = TextModel(content, threads=os.cpu_count() or 1)
    ours, floats = _Counts(), _Counts()
    for part in _batches(as_texts(sentences), TEXTS_AT_A_TIME):
        texts, gold = zip(*part, strict=True)
        for expected, found, plain in zip(
            gold, model.tag(list(texts)), tag_texts(list(texts), predictor, non_names=non_names), strict=True
        ):
            ours.add(expected, _entities(found))
            floats.add(expected, _entities(plain["entities"]))
    return ours.f1(), floats.f1()


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


class _Counts:
    """Entities counted over many texts: right ones, predicted ones, those of the corpus."""

    def __init__(self) -> None:
        self._counts = (0, 0, 0)

    def add(self, gold: set[Entity], found: set[Entity]) -> None:
        right, predicted, support = self._counts
        self._counts = (right + len(gold & found), predicted + len(found), support + len(gold))

    def f1(self) -> float:
        return score_counts("entities", *self._counts).f1


def _entities(rows: Iterable[dict[str, Any]]) -> set[Entity]:
    return {(row["label"], row["start"], row["end"]) for row in rows}


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while part := list(islice(items, size)):
        yield part
