"""Export room: a tagger put together as a TFLite file that takes raw strings, and its score on a corpus as text."""

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import groupby, islice
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from tensorflow.lite.python.interpreter import InterpreterWithCustomOps

from app.config import Config, InputError
from app.data.encoding import Encoder
from app.data.sentence import Sentence
from app.evaluation.predictor import Predictor
from app.export.converter import open_converter
from app.export.graph import TaggingModule
from app.export.graph_text import GraphTagger
from app.run.screen import quiet
from app.tasks.network import Tagger
from app.tasks.tagging.answers import LONGEST_SENTENCE_WORDS, find_non_names, tag_texts
from app.tasks.tagging.graph_decoding import GraphDecoder
from app.tasks.tagging.labels import spans

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


# A TFLite file that takes raw strings, for runtimes that link TensorFlow's and TF Text's operations.
#
# Cutting text needs operations that are not built into TFLite: TF Text's word pieces (custom operations) and, for
# regular expressions and ragged tensors, "Flex" ones. TensorFlow's own interpreter has both; LiteRT alone has neither.


OUTPUTS = ("count", "label", "start", "end", "score")


def convert_text_tagger(tag_texts: Callable[[tf.Tensor], dict[str, tf.Tensor]], module: tf.Module) -> bytes:
    """The content of the file: float32 activations, int8 kernels with dynamic int8 activations.

    Args:
        tag_texts: string [texts] -> `OUTPUTS` (see `GraphTagger`).
        module: owns the constants of `tag_texts`.
    """

    def tag(text: tf.Tensor) -> dict[str, tf.Tensor]:
        # One word more, whose answer is dropped: TFLite's kernels refuse tensors without an element.
        found = tag_texts(tf.concat([text, ["x"]], 0))
        return {name: found[name][: tf.shape(text)[0]] for name in OUTPUTS}

    spec = [tf.TensorSpec([None], tf.string, name="text")]
    concrete = tf.function(tag, input_signature=spec, autograph=False).get_concrete_function()
    with quiet(), open_converter(module, concrete) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
        converter.allow_custom_ops = True
        return bytes(converter.convert())


class TextModel:
    """Raw strings to entities by TensorFlow's TFLite interpreter with TF Text's operations.

    Args:
        content: of the file.
        threads: of the interpreter.

    Raises:
        InputError: it is no such file.
    """

    def __init__(self, content: bytes, *, threads: int = 1) -> None:
        try:
            self._interpreter = InterpreterWithCustomOps(
                model_content=content,
                custom_op_registerers=tf_text.tflite_registrar.SELECT_TFTEXT_OPS,
                num_threads=threads,
            )
            self._run = self._interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"not a TFLite file that takes text: {str(error).splitlines()[0]}") from error

    def tag(self, texts: list[str]) -> list[list[dict[str, Any]]]:
        """Entities of each text, `{"start", "end", "label", "score"}`; offsets in characters."""
        found = self._run(text=np.array([text.encode("utf-8") for text in texts], dtype=object))
        return [
            [
                {
                    "start": int(found["start"][row, i]),
                    "end": int(found["end"][row, i]),
                    "label": found["label"][row, i].decode(),
                    "score": float(found["score"][row, i]),
                }
                for i in range(count)
            ]
            for row, count in enumerate(found["count"])
        ]
