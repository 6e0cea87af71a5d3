"""Evaluation room: which texts a person should look at next.

From top to bottom: texts to answers that are measured (see `uncertainty.py`), and the order in which they are shown.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning

from app.config import RANKS, InputError, PredictConfig
from app.data.documents import divide_texts
from app.data.packing import FEATURES
from app.evaluation.other_run import check_other_run
from app.evaluation.predictor import Predictor, join_rows
from app.evaluation.runtimes import build_predictor
from app.evaluation.uncertainty import MEASURES, Listener, disagreement
from app.tasks.beliefs import Belief
from app.tasks.bundle import read_model
from app.tasks.network import TaskModel, build_encoder

FEW_TEXTS = 20_000  # up to which k-means reads all at every step, and not a sample
DIGITS = 6  # of a measure in an answer
PLACE = {"uncertainty": 0.0, "rank": 0, "occurrences": 0}  # what a ranking adds to a row
_DIGEST_BYTES = 16  # of a text, by which texts that are the same are found


@dataclass(frozen=True, eq=False)
class MeasuredText:
    """A text with its answer.

    Attributes:
        row: of `--mode=predict`; with another run to compare with, its answer too, as "other_answer".
        uncertainty: 0 to 1.
        embedding: float32 [width], of length 1; zeros for a text without a word, empty where nobody asked for it.
    """

    row: dict[str, Any]
    uncertainty: float
    embedding: np.ndarray


class Measurer:
    """Answers texts and says how unsure the model is of each.

    Args:
        predictor: of the model, by any runtime; embeddings are always computed by Keras.
        by: one of `RANKS`.
        config: as for `Task.answer_texts`; None = that of the predictor.
        other: of the model to compare with, for by="disagreement".

    Raises:
        InputError: `by` is unknown, or needs another model, the other model is of another task or other labels, or the
            task has no probabilities.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        by: str = "uncertainty",
        config: PredictConfig | None = None,
        other: Predictor | None = None,
    ) -> None:
        if by not in RANKS:
            raise InputError(f"texts are ranked by one of {', '.join(RANKS)}, received {by!r}")
        if (by == "disagreement") != (other is not None):
            raise InputError("ranking by disagreement needs another model to compare with, and nothing else does")
        if other and (other.task.name, other.model.labels) != (predictor.task.name, predictor.model.labels):
            raise InputError("models that are compared must be of the same task and the same labels")
        predictor.task.find_beliefs(predictor.model, [])  # a task without probabilities says so at once
        self.by = by
        self._predictor, self._other = predictor, other
        self._config = config or predictor.config
        self._measure = MEASURES.get(by) or MEASURES[predictor.task.unsure_by]
        self._sum_states = build_state_sums(predictor.model)

    def measure(self, texts: Sequence[str]) -> list[MeasuredText]:
        """A few texts, such as a part of `divide_texts`."""
        heard = Listener(self._predictor)
        rows = heard.answer_texts(texts, self._config)
        beliefs = heard.find_beliefs(len(texts))
        embeddings = np.zeros((len(texts), 0), np.float32)
        if self.by == "diversity":
            embeddings = self._embed(heard, beliefs)
        if self._other is None:
            measures = [self._measure(belief) for belief in beliefs]
        else:
            second = Listener(self._other)
            others = second.answer_texts(texts, self._config)
            rows = [{**row, "other_answer": _without_text(other)} for row, other in zip(rows, others, strict=True)]
            measures = [disagreement(*pair) for pair in zip(beliefs, second.find_beliefs(len(texts)), strict=True)]
        return list(map(MeasuredText, rows, measures, embeddings))

    def _embed(self, heard: Listener, beliefs: Sequence[Belief]) -> np.ndarray:
        """Mean hidden states of texts, of length 1, float32 [texts, width]; zeros where there is no word."""
        predictor, owners = self._predictor, heard.owners_of_units()
        sums = np.zeros((len(beliefs), predictor.model.backbone.model.hidden_dim), np.float32)
        rows = sorted(predictor.make_rows(heard.examples), key=lambda row: int(np.count_nonzero(row.padding_mask)))
        for at in range(0, len(rows), predictor.batch_size):  # a row is one window of one text
            group = rows[at : at + predictor.batch_size]
            features, unit_ids = join_rows(group, int(np.count_nonzero(group[-1].padding_mask)))
            first = unit_ids[np.arange(len(group)), np.argmax(unit_ids >= 0, axis=1)]
            np.add.at(sums, owners[first], self._sum_states(features))
        known = np.array([len(belief.chances) > 0 for belief in beliefs])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.where(known[:, np.newaxis], sums / np.maximum(lengths, 1e-12), 0.0).astype(np.float32)


def _without_text(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "text"}


def build_state_sums(model: TaskModel) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """The last hidden states of rows, summed over their pieces: features int32 [batch, length] -> [batch, width]."""
    spec = {name: tf.TensorSpec([None, None], tf.int32) for name in FEATURES}

    @tf.function(input_signature=[spec], autograph=False)  # one trace for all shapes
    def compute(features: dict[str, tf.Tensor]) -> tf.Tensor:
        states = tf.cast(model.encoder(features, training=False), tf.float32)  # [batch, length, width]
        return tf.reduce_sum(states * tf.cast(features["padding_mask"] > 0, tf.float32)[..., tf.newaxis], axis=1)

    return lambda features: compute({name: tf.constant(features[name]) for name in FEATURES}).numpy()


def open_other_run(source: str, model: TaskModel, *, batch_size: int) -> Predictor:
    """The model of another run, to compare with a model.

    Raises:
        InputError: it is no finished run, or one of another task or other labels.
    """
    run = check_other_run(source, task=model.task.name, labels=model.labels)
    other = read_model(run.model)
    return build_predictor(other, build_encoder(other, run.read_config().data), batch_size=batch_size)


# The order in which a person should see texts.


def order_texts(
    uncertainties: Sequence[float] | np.ndarray, *, embeddings: np.ndarray | None = None, top: int = 0, seed: int = 0
) -> np.ndarray:
    """Numbers of texts, the one to look at next first; texts that are equally uncertain stay in their order.

    With embeddings the texts are grouped by k-means, into `top` groups or else about the square root of their number;
    the least sure text of each group comes first, then the second of each, and so on (as in Shen et al. 2004,
    "Multi-Criteria-based Active Learning for Named Entity Recognition", strategy 1). So the first are neither all
    alike, nor is any of them what the model knows already while its group has something better.

    Args:
        uncertainties: float [texts].
        embeddings: float32 [texts, width], of length 1, or 0 for a text without a word, which comes last.
        top: how many are wanted; 0 = all.
        seed: of k-means.

    Returns:
        int64 [top, or all texts].
    """
    values = np.asarray(uncertainties, np.float64)
    order = np.argsort(-values, kind="stable")
    if embeddings is not None and len(order):
        groups = _group(embeddings, top or round(np.sqrt(len(order))), seed=seed)
        seen: Counter[int] = Counter()
        rounds = []
        for group in groups[order].tolist():
            rounds.append(seen[group] if group >= 0 else len(order))  # how many of the group are less sure
            seen[group] += 1
        order = order[np.argsort(rounds, kind="stable")]
    return order[:top] if top else order


def _group(embeddings: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """The group of each text, int64 [texts]; -1 for a text without a word."""
    groups = np.full(len(embeddings), -1, np.int64)
    known = np.flatnonzero(np.any(embeddings != 0, axis=1))
    if not len(known):
        return groups
    kind, settings = (KMeans, {}) if len(known) <= FEW_TEXTS else (MiniBatchKMeans, {"batch_size": 4096})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different texts than groups
        means = kind(min(count, len(known)), n_init=1, random_state=seed, **settings)
        groups[known] = means.fit_predict(embeddings[known])
    return groups


class Ranking:
    """Measured texts, until all of them are there and can be sorted.

    Their answers wait in a file without a name that the system removes by itself; memory holds 32 bytes for each text,
    and its embedding where texts are ranked by diversity (1.5 KB at a width of 384).
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()
        self._uncertainties, self._starts = array("d"), array("q")
        self._digests = bytearray()
        self._embeddings: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, row: Mapping[str, Any], measured: MeasuredText) -> None:
        """A text, and the row to be given out for it: that of `measured`, with what stands beside it."""
        self._starts.append(self._file.tell())
        self._uncertainties.append(measured.uncertainty)
        text = row["text"].encode("utf-8", "surrogatepass")
        self._digests += hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()
        self._file.write(json.dumps(row).encode("ascii") + b"\n")  # half a surrogate pair is an escape
        if measured.embedding.size:
            self._embeddings.append(measured.embedding)

    def rows(self, *, top: int = 0, seed: int = 0) -> Iterator[dict[str, Any]]:
        """The rows, the one to look at next first, each with its `uncertainty` and its `rank` from 1.

        A text that is there several times comes once, as the first of them; `occurrences` says how often it is there.
        """
        first, counts = self._find_first()
        embeddings = np.stack([self._embeddings[number] for number in first]) if self._embeddings else None
        uncertainties = np.array(self._uncertainties)[first]
        for rank, number in enumerate(order_texts(uncertainties, embeddings=embeddings, top=top, seed=seed), start=1):
            self._file.seek(self._starts[first[number]])
            row = json.loads(self._file.readline())
            yield {**row, **_place(uncertainties[number], rank, counts[number])}

    def _find_first(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each text is for the first time, ascending, and how often it is there: int64 [different texts] both."""
        digests = np.frombuffer(bytes(self._digests), f"S{_DIGEST_BYTES}")
        _, first, counts = np.unique(digests, return_index=True, return_counts=True)
        order = np.argsort(first)
        return first[order], counts[order]

    def close(self) -> None:
        self._file.close()


def rank_texts(
    model: TaskModel,
    predictor: Predictor,
    texts: Sequence[str],
    *,
    by: str = "uncertainty",
    top: int = 0,
    other: Predictor | None = None,
    config: PredictConfig | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Texts in the order in which a person should look at them.

    Args:
        model: that answers.
        predictor: of this model, by any runtime.
        texts: of any number and length; the answers to all of them are in memory.
        by: one of `RANKS`.
        top: how many are given out; 0 = all.
        other: a predictor of another model of the same task and labels, for by="disagreement".
        config: as for `Task.answer_texts`; None = that of the predictor.
        seed: of k-means, for by="diversity".

    Returns:
        rows of `--mode=predict`, one for each different text, with `uncertainty` (0 to 1), `rank` (from 1),
        `occurrences` (how often the text is among `texts`) and `number`, its first place there; with `other` its answer
        too, as `other_answer`.

    Raises:
        InputError: as `Measurer`.
        ValueError: the predictor is of another model.
    """
    if predictor.model is not model:
        raise ValueError("rank_texts needs a predictor of the model that it is given")
    measurer = Measurer(predictor, by=by, config=config, other=other)
    counts = Counter(texts)  # in the order in which they come for the first time
    places: dict[str, int] = {}
    for number, text in enumerate(texts):
        places.setdefault(text, number)
    measured = [each for part in divide_texts(list(counts)) for each in measurer.measure(part)]
    embeddings = np.stack([each.embedding for each in measured]) if by == "diversity" and measured else None
    order = order_texts([each.uncertainty for each in measured], embeddings=embeddings, top=top, seed=seed)
    rows = []
    for rank, number in enumerate(order, start=1):
        found = measured[number]
        text = found.row["text"]
        rows.append({**found.row, **_place(found.uncertainty, rank, counts[text]), "number": places[text]})
    return rows


def _place(uncertainty: float, rank: int, occurrences: int) -> dict[str, Any]:
    """What a row says of its place in a ranking."""
    return {"uncertainty": round(float(uncertainty), DIGITS), "rank": rank, "occurrences": int(occurrences)}
