"""Export room: packed rows as inputs of exported models: test vectors, and rows to read activation ranges from."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from app.config import Config, InputError
from app.data.encoding import Encoder
from app.data.packing import IGNORED, Example
from app.data.sentence import Sentence
from app.evaluation.predictor import Predictor
from app.evaluation.runtimes import TFLiteModel
from app.export.graph import INPUTS
from app.tasks.corpora import open_split
from app.tasks.network import Tagger
from app.tasks.tagging.corpus import Corpus
from app.tasks.tagging.labels import spans


def make_vectors(predictor: Predictor, encoder: Encoder, corpus: Corpus, *, count: int) -> list[dict[str, Any]]:
    """The first sentences of a corpus, each for itself, with the model's input and the float model's answer."""
    sentences = [
        Sentence(sentence.words, (), number)  # each its own document, so that a row is one sentence
        for number, sentence in enumerate(islice(corpus.sentences(), count))
    ]
    vectors = []
    for sentence, found in zip(sentences, predictor.tag(sentences), strict=True):
        rows = list(encoder.scoring_rows([sentence]))
        if len(rows) != 1:
            continue
        tags = list(found.tags)
        entities = [
            {"label": kind, "first_word": first, "last_word": last - 1, "text": " ".join(sentence.words[first:last])}
            for kind, first, last in spans(tags)
        ]
        inputs = {name: values.tolist() for name, values in row_inputs(rows[0]).items()}
        vectors.append(
            {
                "text": " ".join(sentence.words),
                "words": list(sentence.words),
                **inputs,
                "tags": tags,
                "entities": entities,
            }
        )
    return vectors


def tags_of(model: TFLiteModel, vector: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    """What the decoder inside an exported model says to a test vector."""
    rows = {name: np.array([vector[name]], np.int32) for name in INPUTS}
    starts = rows.pop("word_starts")
    return [labels[i] for i in model.run(rows, starts)["tags"][starts > 0]]


def row_inputs(row: Example) -> dict[str, np.ndarray]:
    """A packed row as inputs of an exported model, without its padding: int32 [length] each."""
    length = int(np.count_nonzero(row.padding_mask))
    starts = (row.unit_ids != IGNORED).astype(np.int32)
    columns = (row.token_ids, row.shape_ids, row.padding_mask, starts)
    return {name: values[:length] for name, values in zip(INPUTS, columns, strict=True)}


def representative_rows(config: Config, tagger: Tagger, encoder: Encoder) -> Iterator[dict[str, np.ndarray]]:
    """Rows of the training corpus, from which activation ranges are read."""
    train = open_split(config.data, "train", labels=tagger.labels)
    if train is None:
        raise InputError("data.train_path is empty; the ranges of export.formats=full_int8 are read from it")
    for row in islice(encoder.scoring_rows(train.sentences()), config.export.calibration_rows):
        yield {name: values[np.newaxis] for name, values in row_inputs(row).items()}
