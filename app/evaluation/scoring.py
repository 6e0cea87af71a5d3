"""Evaluation room: a tagger and a corpus to scores, shared by fine-tuning and evaluation."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from app.config import Config
from app.config.paths import shown
from app.data.encoding import Encoder
from app.data.sentence import Sentence
from app.evaluation.predictor import Predictor
from app.evaluation.report_page import render_page
from app.evaluation.runtimes import build_predictor
from app.run.directory import Request, RunDirectory, sha256_of_arrays
from app.run.environment import mask_environment, mask_secrets
from app.run.screen import heartbeat, say
from app.tasks.bundle import load_tagger, save_tagger
from app.tasks.corpora import check_same_corpora, describe_corpora, note_corpora, open_split
from app.tasks.network import Tagger, build_encoder
from app.tasks.tagging.corpus import summarize
from app.tasks.tagging.errors import count_errors, error_rows
from app.tasks.tagging.report import build_report, conll_rows
from app.tasks.tagging.scores import Scores, compute_scores, count_entities, flat_metrics
from app.text.shapes import NUM_SHAPES
from app.training.opening import open_finished_run


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
        report = build_report(scores, counts, errors, title=title)
        run_dir.write_text(run_dir.report_txt, report.text)
        page = render_page(
            report,
            title=title,
            history=run_dir.read_history(),
            curves={"entity F1": "valid/entity_f1"},
            config_text=mask_secrets(run_dir.config_yaml.read_text(encoding="utf-8")),
            environment=mask_environment(json.loads(run_dir.environment_json.read_text(encoding="utf-8"))),
            speed=("words/s", found[f"{split}/words_per_second"]),
        )
        run_dir.write_text(run_dir.report_html, page)
    return found


def show_results(run_dir: RunDirectory, *, model: Path) -> None:
    """Prints the report and where everything lies."""
    print(run_dir.report_txt.read_text(encoding="utf-8"))
    say(f"report       {run_dir.report_html}")
    say(f"model        {model}")
    say(f"all results  {run_dir.path}")


def build_validation(tagger: Tagger, encoder: Encoder, config: Config) -> Callable[[], dict[str, float]] | None:
    """A function that scores the validation split with the tagger's network as it is then; None without one."""
    valid = open_split(config.data, "valid", labels=tagger.labels)
    if valid is None:
        return None
    predictor = build_predictor(tagger, encoder, batch_size=config.evaluation.batch_size)

    def validate() -> dict[str, float]:
        tagged = Tagged.by(predictor, valid.sentences(), keep_emissions=True)
        scores, loss = tagged.scores(), tagger.head.measure_loss(tagged.emissions, tagged.gold)
        return {"entity_f1": scores.strict.micro.f1, "token_macro_f1": scores.token.macro.f1, "loss": loss}

    return validate


def finish_run(
    tagger: Tagger, metrics: dict, *, card: str, config: Config, run_dir: RunDirectory, mode: str
) -> dict:
    """Writes the numbers and the model of a trained tagger, and scores it; for the chief.

    A kill loses nothing: until the run is marked as trained, the last checkpoint leads here again; from then on, the
    model is scored by `score_again`. The checkpoints go when all is written.

    Returns:
        all numbers.
    """
    variables = tagger.network.trainable_variables
    metrics = metrics | {"weights_sha256": sha256_of_arrays((v.name, v.numpy()) for v in variables)}
    again = run_dir.read_metrics().get("weights_sha256") == metrics["weights_sha256"]  # killed later than here
    metrics = {name: value for name, value in run_dir.write_training_metrics(metrics).items() if name in metrics}
    save_tagger(tagger, run_dir.model, shape_count=NUM_SHAPES, card=card)
    run_dir.mark_trained(config, mode=mode)
    return metrics | score_run(config, run_dir, again=again)


def score_again(request: Request, *, mode: str) -> dict:
    """Scores a run whose training is over, once more or for the first time; nothing of the training is touched.

    Returns:
        all numbers of the run.
    """
    run_dir = request.run_dir
    with open_finished_run(request, mode=mode) as config:
        return run_dir.read_metrics() | score_run(config, run_dir, again=True) if config else {}


def score_run(config: Config, run_dir: RunDirectory, *, again: bool = False) -> dict:
    """Scores the run's model as it was written, so that `--mode=evaluate` gives the same numbers; prints the report.

    The run is complete then.

    Args:
        config: its sections data, evaluation and training.
        run_dir: of the run.
        again: the speed that an earlier scoring measured stays.
    """
    tagger = load_tagger(run_dir.model)
    encoder = build_encoder(tagger, config.data)
    predictor = build_predictor(tagger, encoder, batch_size=config.evaluation.batch_size)
    scored: dict = {}
    opened = {split: open_split(config.data, split, labels=tagger.labels) for split in ("valid", "test")}
    splits = {split: corpus for split, corpus in opened.items() if corpus}
    known = run_dir.read_metrics() if again else {}
    if again:
        learnt = {"train": open_split(config.data, "train")} if Path(config.data.train_path).is_file() else {}
        present = {split: corpus for split, corpus in (learnt | splits).items() if corpus}
        corpora = describe_corpora(config.data, {split: summarize(corpus) for split, corpus in present.items()})
        check_same_corpora(run_dir, corpora)
        note_corpora(run_dir, corpora)
    for split, corpus in splits.items():
        scored |= score_split(
            predictor,
            corpus.sentences(),
            split=split,
            run_dir=run_dir,
            headline=split == list(splits)[-1],
            words_per_second=known.get(f"{split}/words_per_second"),
        )
    run_dir.complete(keep_checkpoints=config.training.keep_checkpoints)
    if splits:
        show_results(run_dir, model=run_dir.model)
    return scored
