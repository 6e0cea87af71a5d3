"""Tasks room: text classification, as the contract wants it told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
import tensorflow as tf

from app.config import Config, ModelConfig, PredictConfig
from app.data.encoding import Encoder
from app.tasks.calibration import fit_temperature, log_softmax
from app.tasks.classification.answers import answer_texts, make_row, settings_of, split_pair
from app.tasks.classification.corpus import (
    TextCorpus,
    TextSummary,
    join_texts,
    open_texts,
    summarize_texts,
    text_format_of,
)
from app.tasks.classification.corpus_checks import (
    check_same_kind,
    check_scored_texts,
    check_texts,
    describe_shared_texts,
    find_shared_texts,
)
from app.tasks.classification.graph import GraphClassifier
from app.tasks.classification.head import TextHead
from app.tasks.classification.holdout import split_off_texts
from app.tasks.classification.labelled_text import LabelledText
from app.tasks.classification.light import ClassificationBasics
from app.tasks.classification.report import build_text_report, prediction_rows, text_error_rows
from app.tasks.classification.scores import (
    HEADLINE,
    NO_LABEL,
    Answers,
    choose_answers,
    compute_text_scores,
    counts_per_text,
    coverage_curve,
    fit_thresholds,
    flat_text_metrics,
    macro_f1_of_sums,
)
from app.tasks.display import LabelDisplay
from app.tasks.head import Head
from app.tasks.network import TaskModel
from app.tasks.report import Report, Segment
from app.tasks.running_text import read_unlabelled
from app.tasks.task import Answers as AnswersTexts
from app.tasks.task import Facts, NetworkAt, Scored, Task

DEFAULT_POOLING = "mean"  # chosen on validation data, docs/results.md
MOST_POINTS = 1000  # of the curve of coverage that a model carries


class Classification(ClassificationBasics, Task):
    """Labels the `[CLS]` that opens each text; the logits of the windows of a long text are averaged."""

    headline = HEADLINE
    headline_name = "macro-F1"
    example = "texts"
    labelled = "texts"
    suffix = "csv"
    speed_name = "classify_texts_per_second"
    curves = {"macro-F1": "valid/macro_f1", "accuracy": "valid/accuracy"}  # noqa: RUF012
    caution = (
        "- Gives every text one of its labels, or none below `predict.min_score`. Accuracy on text unlike the training "
        "corpus is lower: measure it\n  with `--mode=evaluate` on text of your own."
    )
    pieces_meaning = "word pieces: [CLS] text [SEP], 0 after the end"
    warmup_text = "Where is my order? It should have been here on Monday. "

    # Corpora.

    def open_corpus(
        self, config: Config, path: str, *, split: str, labels: Sequence[str] | None = None
    ) -> TextCorpus:
        return open_texts(path, split=split, text_format=text_format_of(config), labels=labels)

    def join(self, parts: Sequence[TextCorpus]) -> TextCorpus:
        return join_texts(parts)

    def split_off(self, corpus: TextCorpus, *, fraction: float, seed: int) -> tuple[TextCorpus, TextCorpus]:
        return split_off_texts(corpus, fraction=fraction, seed=seed)

    def summarize(self, corpus: TextCorpus, config: Config) -> TextSummary:
        return summarize_texts(corpus, text_format_of(config))

    def describe(self, summary: TextSummary) -> str:
        kind = "pairs of texts" if summary.pairs else "texts"
        return f"{summary.texts:,} {kind}, {summary.words:,} words, {len(summary.labels)} labels"

    def describe_labels(self, labels: Sequence[str]) -> str:
        return f"Labels: {', '.join(labels)}"

    def describe_head(self, config: ModelConfig) -> str:
        return f"{resolve_pooling(config)} pooling"

    def find_oddities(
        self, summary: TextSummary, config: Config, *, training: bool, labels: Sequence[str] = ()
    ) -> list[str]:
        text_format = text_format_of(config)
        if training:
            return check_texts(summary, text_format)
        return check_scored_texts(summary, text_format, labels=labels)

    def find_shared(self, train: TextCorpus, others: Mapping[str, TextCorpus]) -> list[str]:
        sources = {split: corpus.source for split, corpus in others.items()}
        return describe_shared_texts(find_shared_texts(train, others), sources)

    def read_unlabelled(self, sources: Sequence[Any], *, limit_words: int = 0) -> Iterator[LabelledText]:
        """One text for each sentence of the running text."""
        for number, sentence in enumerate(read_unlabelled(sources, limit_words=limit_words)):
            yield LabelledText((" ".join(sentence.words),), (), number, 0, out_of_scope=True)

    # The network.

    def find_facts(
        self, config: Config, summary: TextSummary | None, known: Facts, *, labels: Sequence[str]
    ) -> dict[str, Any]:
        """What is learnt: `multi_label`, `pairs`, `label_sets`; and how: `label_smoothing`, `class_weights`."""
        settings = config.classification
        facts: dict[str, Any] = {
            "multi_label": settings.multi_label,
            "pairs": bool(known.get("pairs", False)),
            "label_smoothing": settings.label_smoothing,
        }
        if summary is None:
            return facts
        facts["pairs"] = summary.pairs
        numbers = {label: number for number, label in enumerate(labels)}
        facts["label_sets"] = [[numbers[label] for label in each] for each in summary.label_sets]
        facts["class_weights"] = []
        if settings.class_weights == "balanced":
            mean = sum(summary.counts.values()) / len(labels)
            facts["class_weights"] = [mean / summary.counts.get(label, mean) for label in labels]
        return facts

    def check_fits(self, summary: TextSummary, facts: Facts) -> None:
        check_same_kind(summary, pairs=bool(facts.get("pairs")))

    def build_head(self, labels: Sequence[str], config: ModelConfig, facts: Facts) -> Head:
        return TextHead(
            labels,
            pooling=resolve_pooling(config),
            dropout=config.head_dropout,
            multi_label=bool(facts.get("multi_label")),
            label_sets=facts.get("label_sets", ()),
            label_smoothing=float(facts.get("label_smoothing", 0.0)),
            class_weights=tuple(facts.get("class_weights", ())),
            name="text_head",
        )

    def segments(self, facts: Facts) -> bool:
        return bool(facts.get("pairs"))

    # Answers and scores.

    def score(
        self, model: TaskModel, examples: Sequence[LabelledText], answers: Sequence[np.ndarray], config: PredictConfig
    ) -> Scored:
        gold, logits, settings = _gold(model, examples), np.stack(answers), settings_of(model, config)
        scores = compute_text_scores(gold, logits, model.labels, **settings)
        chosen = _choose(model, logits, config)
        metrics = {name.partition("/")[2]: value for name, value in flat_text_metrics(scores).items()}
        best = chosen.predicted if chosen.best is None else chosen.best
        return Scored(
            headline=scores.macro.f1,
            units=len(examples),
            labelled=len(examples),
            counts=counts_per_text(gold, best, len(model.labels)),
            metrics=metrics,
            curve={HEADLINE: scores.macro.f1, "accuracy": scores.accuracy},
            examples=examples,
            answers=answers,
            scores=(scores, gold, chosen),
        )

    def measure_loss(
        self, model: TaskModel, examples: Sequence[LabelledText], answers: Sequence[np.ndarray]
    ) -> float:
        """Mean negative log-likelihood of the texts in scope."""
        gold, logits = _gold(model, examples), np.stack(answers)
        if gold.ndim == 2:
            return float(np.mean(np.sum(np.logaddexp(0, np.where(gold, -logits, logits)), axis=1)))
        known = gold != NO_LABEL
        if not known.any():
            return 0.0
        return float(-log_softmax(logits[known])[np.arange(known.sum()), gold[known]].mean())

    def headline_of(self, sums: np.ndarray) -> np.ndarray:
        return macro_f1_of_sums(sums)

    def write_predictions(self, scored: Scored) -> str:
        scores, gold, chosen = scored.scores
        return prediction_rows(gold, chosen, scores.labels, [_joined(each) for each in scored.examples])

    def list_errors(self, scored: Scored) -> list[dict[str, Any]]:
        scores, gold, chosen = scored.scores
        return list(text_error_rows(gold, chosen, scores.labels, [_joined(each) for each in scored.examples]))

    def report(self, scored: Scored, errors: Sequence[dict[str, Any]], *, title: str) -> Report:
        return build_text_report(scored.scores[0], errors, title=title)

    def calibrate(
        self, model: TaskModel, examples: Sequence[LabelledText], answers: Sequence[np.ndarray]
    ) -> dict[str, Any]:
        """`temperature`; with it `thresholds` for several labels, else `coverage`: [minimum score, precision] pairs."""
        gold, logits = _gold(model, examples), np.stack(answers)
        temperature = fit_temperature(logits, gold)
        facts: dict[str, Any] = {"temperature": temperature}
        if gold.ndim == 2:
            chosen = choose_answers(logits, multi_label=True, temperature=temperature)
            return facts | {"thresholds": fit_thresholds(gold, chosen.score).tolist()}
        chosen = choose_answers(logits, temperature=temperature)
        assert chosen.best is not None
        curve = coverage_curve(chosen.score, chosen.best == gold, gold != NO_LABEL)  # coverage, accuracy, score
        kept = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), MOST_POINTS)).astype(int))
        return facts | {"coverage": [[float(score), float(right)] for _, right, score in curve[kept]]}

    # In use.

    def answer_texts(
        self, model: TaskModel, texts: Sequence[str], answers: AnswersTexts, config: PredictConfig
    ) -> Iterator[dict[str, Any]]:
        """`{"text", "label", "score", "scores"}`; with several labels `{"text", "labels", "scores"}`.

        The label is null below the minimum score, and of a text without a word, about which nothing is known: its
        labels are equally probable. A pair of texts is one text with a tab between them.
        """
        return answer_texts(model, texts, answers, config)

    def count_answers(self, row: Mapping[str, Any]) -> int:
        return len(row["labels"]) if "labels" in row else int(row["label"] is not None)

    def open_display(self, file: IO[str], labels: Sequence[str]) -> LabelDisplay:
        return LabelDisplay(file, labels)

    # Corrections.

    def read_correction(
        self, text: str, answer: Mapping[str, Any], *, labels: Sequence[str], facts: Facts, number: int
    ) -> list[LabelledText]:
        """A label of null says that the text belongs to no class."""
        given = answer["labels"] if "labels" in answer else [answer.get("label")]
        found = tuple(sorted({label for label in given if label is not None}))
        several = bool(facts.get("multi_label"))
        if len(found) > 1 and not several:
            raise ValueError(f"must have one label, received {', '.join(found)}")
        texts = split_pair(text) if facts.get("pairs") else (text,)
        return [LabelledText(texts, found, number, 0, out_of_scope=not found and not several)]

    def is_learnable(self, example: LabelledText) -> bool:
        return not example.out_of_scope

    def extend_facts(
        self, facts: Facts, examples: Sequence[LabelledText], *, labels: Sequence[str]
    ) -> dict[str, Any]:
        """With several labels to a text, the sets of them that are new."""
        if not facts.get("multi_label"):
            return dict(facts)
        numbers = {label: number for number, label in enumerate(labels)}
        sets = {tuple(each): None for each in facts.get("label_sets", ())}
        sets |= {tuple(numbers[label] for label in example.labels): None for example in examples}
        return {**facts, "label_sets": [list(each) for each in sets]}

    def show(
        self, model: TaskModel, example: LabelledText, answer: np.ndarray | None = None
    ) -> tuple[Segment, ...]:
        if answer is None:
            return (Segment(", ".join(example.labels) or "no label"),)
        row = make_row(model, answer, settings_of(model, PredictConfig()), is_empty=False)
        found = tuple(row["labels"] if "labels" in row else filter(None, [row["label"]]))
        return (Segment(", ".join(sorted(found)) or "no label", wrong=sorted(found) != sorted(example.labels)),)

    # Exports.

    def build_text_graph(
        self, model: TaskModel, encoder: Encoder, network: NetworkAt, config: PredictConfig
    ) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        return GraphClassifier(encoder, network, pairs=bool(model.facts.get("pairs")), **settings_of(model, config))

    @property
    def text_outputs(self) -> dict[str, dict[str, Any]]:
        return {
            "label": {
                "type": "string",
                "shape": ["batch"],
                "meaning": "the label, or several with | between them; empty where there is none",
            },
            "score": {"type": "float32", "shape": ["batch"], "meaning": "probability of the most probable label"},
            "scores": {"type": "float32", "shape": ["batch", "labels"], "meaning": "probability of each label"},
            "given": {"type": "bool", "shape": ["batch", "labels"], "meaning": "whether a label is part of the answer"},
        }

    def rows_from_graph(self, model: TaskModel, found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for given, score, scores in zip(found["given"], found["score"], found["scores"], strict=True):
            named = {name: round(float(each), 4) for name, each in zip(model.labels, scores, strict=True)}
            chosen = [name for name, sure in zip(model.labels, given, strict=True) if sure]
            if model.facts.get("multi_label"):
                rows.append({"labels": chosen, "scores": named})
            else:
                label = chosen[0] if chosen else None
                rows.append({"label": label, "score": round(float(score), 4), "scores": named})
        return rows

    def texts_of(self, examples: Iterable[LabelledText]) -> Iterator[tuple[str, LabelledText]]:
        return ((_joined(example), example) for example in examples)

    def count_text(
        self, model: TaskModel, text: str, gold: LabelledText, row: Mapping[str, Any]
    ) -> list[Sequence[float]]:
        right = _gold(model, [gold])
        if right.ndim == 2:
            found = np.array([[label in row["labels"] for label in model.labels]])
        else:
            # The answer itself: scores are rounded, and of many labels several may be the highest then.
            found = np.array([NO_LABEL if row["label"] is None else model.labels.index(row["label"])])
        return list(counts_per_text(right, found, len(model.labels)))

    @property
    def tflite_outputs(self) -> dict[str, dict[str, Any]]:
        logits = "score of each label at each piece; those of [CLS] count"
        scores = "probability of each label of the text, or window of a text, that begins the row"
        return {
            "logits": {"type": "float32", "shape": ["batch", "length", "labels"], "meaning": logits},
            "scores": {"type": "float32", "shape": ["batch", "labels"], "meaning": scores},
        }

    def describe_model(self, labels: Sequence[str]) -> str:
        shown = ", ".join(labels[:20]) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
        return f"Classifies texts as {shown}."

    def finish_graph(
        self, model: TaskModel, logits: tf.Tensor, inputs: Mapping[str, tf.Tensor], boundary_ids: tuple[int, int]
    ) -> dict[str, tf.Tensor]:
        first = logits[:, 0] / float(model.facts.get("temperature", 1.0))
        scores = tf.sigmoid(first) if model.facts.get("multi_label") else tf.nn.softmax(first)
        return {"logits": logits, "scores": scores}

    def alone(self, example: LabelledText, number: int) -> LabelledText:
        return LabelledText(example.texts, (), number, 0)

    def make_vector(self, example: LabelledText, answer: np.ndarray) -> dict[str, Any]:
        return {"text": _joined(example), "logits": [round(float(each), 6) for each in answer]}

    def agrees(
        self,
        model: TaskModel,
        vector: Mapping[str, Any],
        inputs: Mapping[str, np.ndarray],
        found: Mapping[str, np.ndarray],
    ) -> bool:
        logits = np.array(vector["logits"])
        if model.facts.get("multi_label"):
            return bool(((logits >= 0) == (found["scores"][0] >= 0.5)).all())
        return int(logits.argmax()) == int(found["scores"][0].argmax())


def resolve_pooling(config: ModelConfig) -> str:
    return DEFAULT_POOLING if config.pooling == "auto" else config.pooling


def _choose(model: TaskModel, logits: np.ndarray, config: PredictConfig) -> Answers:
    several = bool(model.facts.get("multi_label"))
    return choose_answers(logits, multi_label=several, **settings_of(model, config))


def _gold(model: TaskModel, examples: Sequence[LabelledText]) -> np.ndarray:
    """Label numbers int64 [texts], NO_LABEL out of scope; with several labels bool [texts, labels]."""
    numbers = {label: number for number, label in enumerate(model.labels)}
    if not model.facts.get("multi_label"):
        return np.array([numbers[each.labels[0]] if each.labels else NO_LABEL for each in examples], np.int64)
    gold = np.zeros((len(examples), len(numbers)), bool)
    for row, each in enumerate(examples):
        gold[row, [numbers[label] for label in each.labels]] = True
    return gold


def _joined(example: LabelledText) -> str:
    return "\t".join(example.texts)


CLASSIFICATION = Classification()
