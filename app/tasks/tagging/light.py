"""Tasks room: tagging on NumPy alone, for a server that must not wait for TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.config import DataConfig, PredictConfig
from app.tasks.light import Described
from app.tasks.tagging.answers import TaggedSentence, find_non_names, tag_texts
from app.tasks.tagging.chain import compute_constraints, compute_posterior, decode_chain
from app.tasks.tagging.encoding import SentenceEncoder
from app.text.shapes import word_shapes

if TYPE_CHECKING:
    from app.data.sentence import Sentence
    from app.tasks.light import LightModel
    from app.tasks.task import Answers


class TaggingBasics(Described):
    """What tagging is, with TensorFlow and without."""

    name = "tagging"
    title = "Named-entity tagger"
    sample_text = "Angela Merkel visited the United Nations in New York."
    model_name = "ner"
    unit = "words"
    averages_windows = False

    def build_encoder(
        self, pieces: Any, labels: Sequence[str], data: DataConfig, facts: Mapping[str, Any]
    ) -> SentenceEncoder:
        return SentenceEncoder(
            pieces=pieces,
            labels=tuple(labels),
            shapes=word_shapes,
            max_length=data.max_length,
            overlap=data.overlap_tokens,
            by_document=data.packing == "document",
        )

    def count_units(self, example: Sentence) -> int:
        return len(example.words)

    def group_of(self, example: Sentence) -> int:
        return example.document


class LightTagging(TaggingBasics):
    """As `Tagging` answers, and as the text signature of its SavedModel does."""

    def decode(
        self, model: LightModel, emissions: Sequence[np.ndarray], *, probabilities: bool
    ) -> list[TaggedSentence]:
        start, moves, end = self._scores(model)
        temperature = float(model.facts.get("temperature", 1.0))
        found = []
        for logits in emissions:
            if not len(logits):
                found.append(TaggedSentence([], np.zeros(0, np.float32), logits))
                continue
            scores = logits.copy()
            scores[0] += start
            scores[-1] += end
            ids = decode_chain(scores, moves)
            chances = compute_posterior(scores / temperature, moves / temperature)[np.arange(len(ids)), ids]
            found.append(TaggedSentence([model.labels[i] for i in ids], chances, logits))
        return found

    def _scores(self, model: LightModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Start, transition and end scores, as `TaggingHead.decoding_scores` gives them."""
        if not model.cache:
            start, rules = compute_constraints(model.labels)
            learnt = model.weights.get("tagging_head/transitions")
            if learnt is None:
                model.cache["scores"] = start, rules, np.zeros_like(start)
            else:
                model.cache["scores"] = start + learnt[0], rules + learnt, learnt[:, 0]
        found: tuple[np.ndarray, np.ndarray, np.ndarray] = model.cache["scores"]
        return found

    def answer_texts(
        self, model: LightModel, texts: Sequence[str], answers: Answers, config: PredictConfig
    ) -> Iterator[dict[str, Any]]:
        return tag_texts(texts, answers, split=config.split_sentences, non_names=find_non_names(model, config))

    def agrees(self, model: LightModel, vector: Mapping[str, Any], logits: np.ndarray) -> bool:
        """Whether logits float32 [1, length, labels] of a test vector are the answer that it holds."""
        (found,) = self.decode(model, [logits[0][np.array(vector["word_starts"]) > 0]], probabilities=False)
        return found.tags == vector["tags"]

    def outputs(self, rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> dict[str, np.ndarray]:
        """Rows of `answer_texts` as outputs of the SavedModel's text signature."""
        count = np.array([len(row["entities"]) for row in rows], np.int32)
        shape = (len(rows), int(count.max(initial=0)))
        found: dict[str, np.ndarray] = {
            "count": count,
            "label": np.full(shape, b"", object),
            "start": np.zeros(shape, np.int32),
            "end": np.zeros(shape, np.int32),
            "score": np.zeros(shape, np.float32),
        }
        for at, row in enumerate(rows):
            for number, entity in enumerate(row["entities"]):
                found["label"][at, number] = entity["label"].encode("utf-8")
                for name in ("start", "end", "score"):
                    found[name][at, number] = entity[name]
        return found


LIGHT_TAGGING = LightTagging()
