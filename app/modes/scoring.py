"""Modes room: a tagger and a corpus to scores, shared by fine-tuning and evaluation."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from app.artifacts import RunDirectory
from app.checks import check_row_length, require_split
from app.config import DataConfig
from app.data.corpus import Corpus, CorpusSummary, join_corpora, open_corpus, summarize
from app.data.encoding import Encoder
from app.data.holdout import split_off
from app.data.labels import types_from
from app.data.sentence import Sentence
from app.data.shapes import word_shapes
from app.data.word_pieces import WordPieces
from app.environment import mask_environment, mask_secrets
from app.evaluation.errors import count_errors, error_rows
from app.evaluation.html_report import html_report
from app.evaluation.predictor import Features, Forward, Predictor
from app.evaluation.report import conll_rows, text_report
from app.evaluation.scores import Scores, compute_scores, count_entities, flat_metrics
from app.heartbeat import heartbeat
from app.models.heads import decode_sentences
from app.models.tagger import INPUT_NAMES, Tagger
from app.paths import shown


def say(text: str) -> None:
    """A line for the person watching; standard output stays free for results."""
    print(text, file=sys.stderr, flush=True)


def open_split(data: DataConfig, split: str, *, labels: Sequence[str] | None = None) -> Corpus | None:
    """The corpus of a split, or None if there is none; with `labels`, other types are an error.

    With `data.train_on_valid` the validation corpus is part of the training corpus and no split of its own; with
    `data.valid_fraction` it is a part of the training corpus, which lacks it.
    """
    types = None if labels is None else types_from(labels)

    def opened(name: str) -> Corpus | None:
        path = getattr(data, f"{name}_path")
        return open_corpus(path, split=name, config=data, types=types) if path else None

    if data.valid_fraction and split != "test":
        whole = opened("train")
        if whole is None or data.train_on_valid:
            return whole if split == "train" else None
        train, valid = split_off(whole, fraction=data.valid_fraction, seed=data.valid_seed)
        return train if split == "train" else valid
    if not data.train_on_valid or split == "test":
        return opened(split)
    return join_corpora([corpus for corpus in map(opened, ("train", "valid")) if corpus]) if split == "train" else None


def open_scored_split(data: DataConfig, split: str, *, labels: Sequence[str], purpose: str) -> Corpus:
    """The corpus of a split that must be there, read through once; see `read_scored_split`."""
    return read_scored_split(data, split, labels=labels, purpose=purpose)[0]


def read_scored_split(
    data: DataConfig, split: str, *, labels: Sequence[str], purpose: str
) -> tuple[Corpus, CorpusSummary]:
    """The corpus of a split that must be there, and what one pass over it finds; `purpose` says what it is needed for.

    Raises:
        InputError: there is none, or a fault in it.
    """
    require_split(data, split, purpose)
    corpus = open_split(data, split, labels=labels)
    assert corpus is not None
    with heartbeat(f"reading {corpus.source}"):
        return corpus, summarize(corpus)


def build_encoder(tagger: Tagger, data: DataConfig) -> Encoder:
    """The encoder that belongs to a tagger: its vocabulary, its labels, its row length."""
    backbone = tagger.backbone
    check_row_length(data, positions=backbone.model.max_sequence_length)
    return Encoder(
        pieces=WordPieces(backbone.vocabulary, lowercase=backbone.lowercase),
        labels=tagger.labels,
        shapes=word_shapes,
        max_length=data.max_length,
        overlap=data.overlap_tokens,
        by_document=data.packing == "document",
    )


def build_predictor(
    tagger: Tagger, encoder: Encoder, *, batch_size: int, forward: Forward | None = None
) -> Predictor:
    """A predictor over `forward`, or else the Keras network.

    The transition scores are read at each call, so it follows training.
    """

    def decode(
        emissions: Sequence[np.ndarray], probabilities: bool
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        return decode_sentences(emissions, tagger.head.decoding_scores(), probabilities=probabilities)

    run = forward or build_keras_forward(tagger)
    return Predictor(tagger.labels, encoder.scoring_rows, run, decode, batch_size)


def build_keras_forward(tagger: Tagger) -> Forward:
    """The Keras network as it is now, traced once for all shapes."""
    spec = {name: tf.TensorSpec([None, None], tf.int32) for name in INPUT_NAMES}

    @tf.function(input_signature=[spec], autograph=False)  # one trace for all shapes
    def forward(features: dict[str, tf.Tensor]) -> tf.Tensor:
        return tagger.network(features, training=False)

    def call(features: Features) -> np.ndarray:
        return forward({name: tf.constant(features[name]) for name in INPUT_NAMES}).numpy()

    return call


class Tagged:
    """A corpus beside its predictions: the four columns that every report is made of."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.gold: list[list[str]] = []
        self.predicted: list[list[str]] = []
        self.documents: list[int] = []
        self.emissions: list[np.ndarray] = []

    @classmethod
    def by(cls, predictor: Predictor, sentences: Iterable[Sentence], *, keep_emissions: bool = False) -> "Tagged":
        """Tags a corpus; a sentence is held once, as words and two columns of tags, with its logits on request."""
        tagged = cls()

        def remembered() -> Iterator[Sentence]:
            for sentence in sentences:
                tagged.words.append(list(sentence.words))
                tagged.gold.append(list(sentence.tags))
                tagged.documents.append(sentence.document)
                yield sentence

        for found in predictor.tag(remembered()):
            tagged.predicted.append(found.tags)
            if keep_emissions:
                tagged.emissions.append(found.emissions)
        return tagged

    def scores(self) -> Scores:
        return compute_scores(self.gold, self.predicted)

    def entity_counts(self) -> np.ndarray:
        """Right, predicted and gold entities of each sentence, int64 [sentences, 3]."""
        return count_entities(self.gold, self.predicted)


def score_split(
    predictor: Predictor,
    sentences: Iterable[Sentence],
    *,
    split: str,
    run_dir: RunDirectory,
    headline: bool,
    title: str = "",
    words_per_second: float | None = None,
) -> dict[str, float]:
    """Scores one split and writes its predictions and errors, and the run's reports if it is the headline split.

    Args:
        predictor: of the model to score.
        sentences: the split.
        split: `train`, `valid` or `test`.
        run_dir: where everything goes.
        headline: whether `report.txt` and `report.html` show this split.
        title: of the reports; empty for the run and the split.
        words_per_second: found when the split was scored before, and kept; None = measured now.

    Returns:
        the scores, flat, under `SPLIT/`.
    """
    began = time.monotonic()
    with heartbeat(f"scoring {split}"):
        tagged = Tagged.by(predictor, sentences)
    seconds = time.monotonic() - began
    scores = tagged.scores()
    columns = (tagged.words, tagged.gold, tagged.predicted)
    found = flat_metrics(scores, prefix=split)
    found[f"{split}/words_per_second"] = words_per_second or scores.words / seconds
    run_dir.update_metrics(found)
    run_dir.write_text(run_dir.predictions(split), conll_rows(*columns))
    errors = list(error_rows(*columns, tagged.documents))
    run_dir.write_jsonl(run_dir.errors(split), errors)
    if headline:
        counts = count_errors(tagged.gold, tagged.predicted)
        title = title or f"{shown(run_dir.path.resolve().name)}: {split} split"
        run_dir.write_text(run_dir.report_txt, text_report(scores, counts, title=title))
        page = html_report(
            title=title,
            scores=scores,
            errors=counts,
            examples=errors,
            history=run_dir.read_history(),
            config_text=mask_secrets(run_dir.config_yaml.read_text(encoding="utf-8")),
            environment=mask_environment(json.loads(run_dir.environment_json.read_text(encoding="utf-8"))),
            words_per_second=found[f"{split}/words_per_second"],
        )
        run_dir.write_text(run_dir.report_html, page)
    return found


def show_results(run_dir: RunDirectory, *, model: Path) -> None:
    """Prints the report and where everything lies."""
    print(run_dir.report_txt.read_text(encoding="utf-8"))
    say(f"report       {run_dir.report_html}")
    say(f"model        {model}")
    say(f"all results  {run_dir.path}")
