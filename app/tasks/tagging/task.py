"""Tasks room: named-entity tagging, as the contract wants it told."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import IO, Any

import numpy as np
import tensorflow as tf
from scipy.optimize import minimize_scalar

from app.config import Config, ModelConfig, PredictConfig
from app.data.encoding import Encoder
from app.data.sentence import Sentence
from app.tasks.beliefs import Belief
from app.tasks.display import EntityDisplay
from app.tasks.head import Head, find_boundaries
from app.tasks.network import TaskModel
from app.tasks.report import Report, Segment
from app.tasks.running_text import read_unlabelled
from app.tasks.tagging.answers import (
    LONGEST_SENTENCE_WORDS,
    Entity,
    TaggedSentence,
    as_texts,
    count_by_line,
    find_non_names,
    read_entities,
    tag_texts,
)
from app.tasks.tagging.corpus import (
    Corpus,
    CorpusSummary,
    check_scored,
    check_types,
    describe_shared_text,
    find_shared_text,
    join_corpora,
    open_corpus,
    split_off,
    summarize,
)
from app.tasks.tagging.crf import compute_chain_divergence
from app.tasks.tagging.encoding import SentenceEncoder
from app.tasks.tagging.graph import TEXT_OUTPUTS, GraphTagger
from app.tasks.tagging.graph_decoding import GraphDecoder, decode_rows
from app.tasks.tagging.head import (
    DecodingScores,
    TaggingHead,
    decode_sentences,
    measure_beliefs,
    measure_tag_likelihood,
)
from app.tasks.tagging.labels import spans, types_from
from app.tasks.tagging.light import TaggingBasics
from app.tasks.tagging.report import build_report, conll_rows
from app.tasks.tagging.scores import compute_scores, count_entities, count_errors, error_rows, flat_metrics, micro_f1
from app.tasks.task import Answers, ChainLoss, Facts, NetworkAt, Scored, Task

CALIBRATION_SENTENCES = 4000  # of the validation split, evenly spread
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.2, 5.0


class Tagging(TaggingBasics, Task):
    """Labels the first piece of each word; a sentence is tagged as a whole."""

    headline = "entity_f1"
    headline_name = "entity F1"
    example = "sentences"
    labelled = "entities"
    suffix = "conll"
    speed_name = "tag_words_per_second"
    labels_words = True
    unit_input_meaning = "1 at the first piece of each word; all 0: no tags, logits only"
    pieces_meaning = "word pieces: [CLS] sentence [SEP] sentence [SEP] ..., 0 after the end"
    warmup_text = "Ann Smith of the U.S. met Bob Jones in St. Louis on Monday. It rained. "
    curves = {"entity F1": "valid/entity_f1"}  # noqa: RUF012
    caution = (
        "- Tags written text split into words the CoNLL way. Accuracy on text unlike the training corpus is lower: "
        "measure it\n  with `--mode=evaluate` on text of your own. Names of people are personal data where the law "
        "says so."
    )

    # Corpora.

    def open_corpus(self, config: Config, path: str, *, split: str, labels: Sequence[str] | None = None) -> Corpus:
        types = None if labels is None else types_from(labels)
        return open_corpus(path, split=split, config=config.data, types=types)

    def join(self, parts: Sequence[Corpus]) -> Corpus:
        return join_corpora(parts)

    def split_off(self, corpus: Corpus, *, fraction: float, seed: int) -> tuple[Corpus, Corpus]:
        return split_off(corpus, fraction=fraction, seed=seed)

    def summarize(self, corpus: Corpus, config: Config) -> CorpusSummary:
        return summarize(corpus)

    def describe(self, summary: CorpusSummary) -> str:
        return f"{summary.sentences:,} sentences, {summary.words:,} words, types {', '.join(summary.types)}"

    def describe_part(self, summary: CorpusSummary) -> str:
        return f"{summary.sentences:,} sentences, {summary.documents:,} documents"

    def describe_labels(self, labels: Sequence[str]) -> str:
        return f"Entity types: {', '.join(types_from(labels))}"

    def describe_head(self, config: ModelConfig) -> str:
        return config.head

    def find_oddities(
        self, summary: CorpusSummary, config: Config, *, training: bool, labels: Sequence[str] = ()
    ) -> list[str]:
        return check_types(summary) if training else check_scored(summary)

    def find_repairs(self, summary: CorpusSummary) -> str:
        if not summary.repaired:
            return ""
        return f"{summary.source}: {summary.repaired} I- tags that began an entity were read as B-"

    def find_shared(self, train: Corpus, others: Mapping[str, Corpus]) -> list[str]:
        sources = {split: corpus.source for split, corpus in others.items()}
        return describe_shared_text(find_shared_text(train, others), sources)

    def read_unlabelled(self, sources: Sequence[Any], *, limit_words: int = 0) -> Iterator[Sentence]:
        return read_unlabelled(sources, limit_words=limit_words)

    # The network.

    def find_facts(
        self, config: Config, summary: CorpusSummary | None, known: Facts, *, labels: Sequence[str]
    ) -> dict[str, Any]:
        """`non_name_types`: entity types that are often dates, mail addresses and the like."""
        types = {*known.get("non_name_types", ()), *(summary.non_name_types if summary else ())}
        return {"non_name_types": tuple(sorted(types))}

    def build_head(self, labels: Sequence[str], config: ModelConfig, facts: Facts) -> Head:
        return TaggingHead(
            labels, kind=config.head, dropout=config.head_dropout, reach=config.exit_reach, name="tagging_head"
        )

    def sequence_loss(
        self, student: TaskModel, teachers: Sequence[TaskModel], temperature: float
    ) -> ChainLoss:
        constrained = "crf" in (student.head.kind, *(teacher.head.kind for teacher in teachers))
        return ChainLoss(
            compute_chain_divergence,
            partial(student.head.chain_scores, temperature, constrained=student.head.kind == "crf"),
            [partial(each.head.chain_scores, temperature, constrained=constrained) for each in teachers],
        )

    # Answers and scores.

    def decode(
        self, model: TaskModel, emissions: Sequence[np.ndarray], *, probabilities: bool
    ) -> list[TaggedSentence]:
        found, chances = decode_sentences(emissions, _scoring(model), probabilities=probabilities)
        nothing = np.zeros(0, np.float32)
        return [
            TaggedSentence([model.labels[i] for i in ids], chances[at] if probabilities else nothing, emissions[at])
            for at, ids in enumerate(found)
        ]

    def score(
        self,
        model: TaskModel,
        examples: Sequence[Sentence],
        answers: Sequence[TaggedSentence],
        config: PredictConfig,
    ) -> Scored:
        gold, predicted = _columns(examples, answers)
        scores = compute_scores(gold, predicted)
        f1 = scores.strict.micro.f1
        return Scored(
            headline=f1,
            units=scores.words,
            labelled=scores.strict.micro.support,
            counts=count_entities(gold, predicted),
            metrics={name.partition("/")[2]: value for name, value in flat_metrics(scores).items()},
            curve={"entity_f1": f1, "token_macro_f1": scores.token.macro.f1},
            examples=examples,
            answers=answers,
            scores=scores,
        )

    def measure_loss(
        self, model: TaskModel, examples: Sequence[Sentence], answers: Sequence[TaggedSentence]
    ) -> float:
        return float(model.head.measure_loss([each.emissions for each in answers], [each.tags for each in examples]))

    def headline_of(self, sums: np.ndarray) -> np.ndarray:
        return micro_f1(sums)

    def write_predictions(self, scored: Scored) -> str:
        return conll_rows([each.words for each in scored.examples], *_columns(scored.examples, scored.answers))

    def list_errors(self, scored: Scored) -> list[dict[str, Any]]:
        words = [list(each.words) for each in scored.examples]
        documents = [each.document for each in scored.examples]
        return list(error_rows(words, *_columns(scored.examples, scored.answers), documents))

    def report(self, scored: Scored, errors: Sequence[dict[str, Any]], *, title: str) -> Report:
        counts = count_errors(*_columns(scored.examples, scored.answers))
        return build_report(scored.scores, counts, errors, title=title)

    def calibrate(
        self, model: TaskModel, examples: Sequence[Sentence], answers: Sequence[TaggedSentence]
    ) -> dict[str, Any]:
        """`temperature`, with which the probabilities of tags are most nearly what they say (Guo et al. 2017)."""
        ids = {label: number for number, label in enumerate(model.labels)}
        step = max(1, len(examples) // CALIBRATION_SENTENCES)
        emissions = [each.emissions for each in answers[::step]]
        labels = [np.array([ids[tag] for tag in each.tags], np.int32) for each in examples[::step]]
        scoring = model.head.decoding_scores()

        def measure(log_temperature: float) -> float:
            at = dataclasses.replace(scoring, temperature=math.exp(log_temperature))
            return measure_tag_likelihood(emissions, labels, at)

        bounds = (math.log(LEAST_TEMPERATURE), math.log(MOST_TEMPERATURE))
        found = minimize_scalar(measure, bounds=bounds, method="bounded", options={"xatol": 0.01})
        return {"temperature": math.exp(found.x) if found.fun < measure(0.0) else 1.0}

    # In use.

    def answer_texts(
        self, model: TaskModel, texts: Sequence[str], answers: Answers, config: PredictConfig
    ) -> Iterator[dict[str, Any]]:
        return tag_texts(
            texts,
            answers,
            split=config.split_sentences,
            min_score=config.min_score,
            non_names=find_non_names(model, config),
        )

    def count_answers(self, row: Mapping[str, Any]) -> int:
        return len(row["entities"])

    def find_beliefs(self, model: TaskModel, answers: Sequence[TaggedSentence]) -> list[Belief]:
        """Of each sentence the posterior probabilities of tags, and the probability of all its tags together."""
        ids = {label: number for number, label in enumerate(model.labels)}
        labels = [np.array([ids[tag] for tag in each.tags], np.int32) for each in answers]
        return measure_beliefs([each.emissions for each in answers], labels, _scoring(model))

    def open_display(self, file: IO[str], labels: Sequence[str]) -> EntityDisplay:
        return EntityDisplay(file, types_from(labels))

    # Corrections.

    def read_correction(
        self, text: str, answer: Mapping[str, Any], *, labels: Sequence[str], facts: Facts, number: int
    ) -> list[Sentence]:
        return read_entities(text, answer["entities"], number=number)

    def show(
        self, model: TaskModel, example: Sentence, answer: TaggedSentence | None = None
    ) -> tuple[Segment, ...]:
        gold = set(spans(example.tags))
        segments, place = [], 0
        for kind, first, last in spans(example.tags if answer is None else answer.tags):
            segments.append(Segment("".join(f"{word} " for word in example.words[place:first])))
            is_wrong = (kind, first, last) not in gold
            segments += [Segment(" ".join(example.words[first:last]), kind, is_wrong), Segment(" ")]
            place = last
        segments.append(Segment(" ".join(example.words[place:])))
        return tuple(segment for segment in segments if segment.text)

    # Exports.

    def build_text_graph(
        self, model: TaskModel, encoder: Encoder, network: NetworkAt, config: PredictConfig
    ) -> GraphTagger:
        assert isinstance(encoder, SentenceEncoder)
        return GraphTagger(
            encoder,
            network,
            GraphDecoder(_scoring(model)),
            split_sentences=config.split_sentences,
            longest_sentence=LONGEST_SENTENCE_WORDS,
            non_names=find_non_names(model, config),
        )

    def graph_settings(self, config: PredictConfig) -> PredictConfig:
        return replace(config, min_score=0.0)  # every entity comes with its score, and the caller chooses

    @property
    def text_outputs(self) -> dict[str, dict[str, Any]]:
        return TEXT_OUTPUTS

    def rows_from_graph(self, model: TaskModel, found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        def entity(row: int, number: int) -> dict[str, Any]:
            kinds = (("start", int), ("end", int), ("label", lambda label: label.decode()), ("score", float))
            return {name: kind(found[name][row, number]) for name, kind in kinds}

        return [
            {"entities": [entity(row, number) for number in range(count)]} for row, count in enumerate(found["count"])
        ]

    def texts_of(self, examples: Iterable[Sentence]) -> Iterator[tuple[str, set[Entity]]]:
        return as_texts(examples)

    def count_text(
        self, model: TaskModel, text: str, gold: set[Entity], row: Mapping[str, Any]
    ) -> list[Sequence[float]]:
        return count_by_line(text, gold, row)

    @property
    def tflite_outputs(self) -> dict[str, dict[str, Any]]:
        logits = "score of each label at each piece; those of the first piece of a word count"
        tags = "number of the label of each word, decoded by Viterbi; -1 elsewhere"
        return {
            "logits": {"type": "float32", "shape": ["batch", "length", "labels"], "meaning": logits},
            "tags": {"type": "int32", "shape": ["batch", "length"], "meaning": tags},
        }

    def describe_model(self, labels: Sequence[str]) -> str:
        return f"Tags words with {', '.join(labels)}."

    def finish_graph(
        self, model: TaskModel, logits: tf.Tensor, inputs: Mapping[str, tf.Tensor], boundary_ids: tuple[int, int]
    ) -> dict[str, tf.Tensor]:
        """Tags of the words whose first pieces `word_starts` marks; all 0 leaves out the decoding."""
        boundaries = find_boundaries(inputs["token_ids"], boundary_ids) & (inputs["padding_mask"] > 0)
        starts = (inputs[self.unit_input] > 0) & ~boundaries
        transitions = model.head.decoding_scores().transitions
        return {"logits": logits, "tags": decode_rows(logits, starts, boundaries, transitions)}

    def alone(self, example: Sentence, number: int) -> Sentence:
        return Sentence(example.words, (), number)  # each its own document, so that a row is one sentence

    def make_vector(self, example: Sentence, answer: TaggedSentence) -> dict[str, Any]:
        entities = [
            {"label": kind, "first_word": first, "last_word": last - 1, "text": " ".join(example.words[first:last])}
            for kind, first, last in spans(answer.tags)
        ]
        return {
            "text": " ".join(example.words),
            "words": list(example.words),
            "tags": list(answer.tags),
            "entities": entities,
        }

    def agrees(
        self,
        model: TaskModel,
        vector: Mapping[str, Any],
        inputs: Mapping[str, np.ndarray],
        found: Mapping[str, np.ndarray],
    ) -> bool:
        return [model.labels[i] for i in found["tags"][inputs[self.unit_input] > 0]] == list(vector["tags"])


def _scoring(model: TaskModel) -> DecodingScores:
    """What decoding needs beside the logits, with the temperature that validation found."""
    found = model.head.decoding_scores()
    return dataclasses.replace(found, temperature=float(model.facts.get("temperature", 1.0)))


def _columns(
    examples: Sequence[Sentence], answers: Sequence[TaggedSentence]
) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags of sentences."""
    return [list(each.tags) for each in examples], [each.tags for each in answers]


TAGGING = Tagging()
