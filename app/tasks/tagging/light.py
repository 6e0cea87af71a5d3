"""Tasks room: tagging on NumPy alone, for a server that must not wait for TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.config import DataConfig, PredictConfig
from app.tasks.beliefs import Belief
from app.tasks.light import Described
from app.tasks.tagging.answers import TaggedSentence, find_non_names, tag_texts
from app.tasks.tagging.chain import compute_constraints, compute_posterior, decode_chain, score_path
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
    unit_input = "word_starts"

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

    def words_of(self, example: Sentence) -> Sequence[str]:
        return example.words

    def text_of(self, example: Sentence, position: int) -> int:
        return example.document


class LightTagging(TaggingBasics):
    """As `Tagging` answers, and as the text signature of its SavedModel does."""

    def decode(
        self, model: LightModel, emissions: Sequence[np.ndarray], *, probabilities: bool
    ) -> list[TaggedSentence]:
        moves, temperature = self._scores(model)[1], self._temperature(model)
        found = []
        for logits in emissions:
            if not len(logits):
                found.append(TaggedSentence([], np.zeros(0, np.float32), logits))
                continue
            scores = self._chain(model, logits)
            ids = decode_chain(scores, moves)
            chances = compute_posterior(scores / temperature, moves / temperature)[np.arange(len(ids)), ids]
            found.append(TaggedSentence([model.labels[i] for i in ids], chances, logits))
        return found

    def find_beliefs(self, model: LightModel, answers: Sequence[TaggedSentence]) -> list[Belief]:
        """As `Tagging.find_beliefs`: posterior probabilities of tags, and the probability of all tags together."""
        moves, temperature = self._scores(model)[1], self._temperature(model)
        ids = {label: number for number, label in enumerate(model.labels)}
        beliefs = []
        for each in answers:
            if not len(each.emissions):
                beliefs.append(Belief(np.zeros((0, len(ids))), 0.0))
                continue
            scores, scaled_moves = self._chain(model, each.emissions) / temperature, moves / temperature
            path = np.array([ids[tag] for tag in each.tags])
            log_chance = score_path(scores, scaled_moves, path)
            beliefs.append(Belief(compute_posterior(scores, scaled_moves), min(0.0, log_chance)))
        return beliefs

    def _temperature(self, model: LightModel) -> float:
        return float(model.facts.get("temperature", 1.0))

    def _chain(self, model: LightModel, logits: np.ndarray) -> np.ndarray:
        """Logits of a sentence with start and end scores, float32 [words, labels]."""
        start, _, end = self._scores(model)
        scores = logits.copy()
        scores[0] += start
        scores[-1] += end
        return scores

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
