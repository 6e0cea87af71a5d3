"""Evaluation room: a model and a corpus to scores, shared by fine-tuning and evaluation."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from app.config import Config, InputError, PredictConfig
from app.config.paths import shown
from app.data.encoding import Encoder
from app.evaluation.exit_report import add_exits, describe_choice
from app.evaluation.exits import measure_exits
from app.evaluation.predictor import Predictor
from app.evaluation.report_page import Opening, render_page
from app.evaluation.runtimes import build_predictor
from app.run.directory import Request, RunDirectory, sha256_of_arrays
from app.run.environment import mask_environment, mask_secrets
from app.run.screen import heartbeat, say
from app.tasks import check_settings
from app.tasks.bundle import load_model, save_facts, save_model
from app.tasks.corpora import check_same_corpora, describe_corpora, note_corpora, open_split, summarize
from app.tasks.network import TaskModel, build_encoder
from app.tasks.task import Corpus, Scored
from app.text.shapes import NUM_SHAPES
from app.training.sessions import open_finished_run

SHOWN_ROWS = 20  # of a table on the screen; up to twice as many are not worth a cut


def score(predictor: Predictor, examples: Iterable[Any]) -> Scored:
    """Answers a corpus and scores it; each example is held once, with its answer."""
    return predictor.task.score(predictor.model, *_answer(predictor, examples), predictor.config)


def _answer(predictor: Predictor, examples: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Examples, and the answer to each."""
    kept: list[Any] = []

    def remembered() -> Iterator[Any]:
        for example in examples:
            kept.append(example)
            yield example

    answers = list(predictor.answer(remembered()))
    return kept, answers


def _answer_timed(
    predictor: Predictor, examples: Iterable[Any], *, split: str
) -> tuple[tuple[list[Any], list[Any]], float]:
    """Examples and their answers, and the seconds that took; scoring takes no part in that."""
    if predictor.early:
        predictor.early.begin()
    began = time.monotonic()
    with heartbeat(f"scoring {split}"):
        answered = _answer(predictor, examples)
    return answered, time.monotonic() - began


def score_split(
    predictor: Predictor,
    examples: Iterable[Any],
    *,
    split: str,
    run_dir: RunDirectory,
    headline: bool,
    title: str = "",
    per_second: float | None = None,
) -> dict[str, float]:
    """Scores one split and writes its predictions and errors, and the run's reports if it is the headline split.

    Args:
        predictor: of the model to score.
        examples: the split.
        split: `train`, `valid` or `test`.
        run_dir: where everything goes.
        headline: whether `report.txt` and `report.html` show this split.
        title: of the reports; empty for the run and the split.
        per_second: words or texts per second when the split was scored before, which is kept; None = measured now.

    Returns:
        the scores, flat, under `SPLIT/`.
    """
    answered, seconds = _answer_timed(predictor, examples, split=split)
    scored = predictor.task.score(predictor.model, *answered, predictor.config)
    return write_scores(
        predictor,
        scored,
        split=split,
        run_dir=run_dir,
        headline=headline,
        title=title,
        per_second=per_second or scored.units / seconds,
    )


def write_scores(
    predictor: Predictor,
    scored: Scored,
    *,
    split: str,
    run_dir: RunDirectory,
    headline: bool,
    title: str = "",
    per_second: float,
    opening: Opening | None = None,
) -> dict[str, float]:
    """The files of a scored split, see `score_split`; `opening` stands before the report."""
    task = predictor.task
    depth = predictor.early.measure() if predictor.early else {}
    if predictor.early:
        depth["exit_threshold"] = predictor.early.threshold
    found = {f"{split}/{name}": value for name, value in (scored.metrics | depth).items()}
    found[f"{split}/{task.unit}_per_second"] = per_second
    run_dir.update_metrics(found)
    run_dir.write_text(run_dir.predictions(split, task.suffix), task.write_predictions(scored))
    errors = task.list_errors(scored)
    run_dir.write_jsonl(run_dir.errors(split), errors)
    if headline:
        title = title or f"{shown(run_dir.path.resolve().name)}: {split} split"
        report = add_exits(task.report(scored, errors, title=title), predictor)
        run_dir.write_text(run_dir.report_txt, (opening.text if opening else "") + report.text)
        page = render_page(
            report,
            title=title,
            curves=task.curves or {task.headline_name: f"valid/{task.headline}"},
            history=run_dir.read_history(),
            config_text=mask_secrets(run_dir.config_yaml.read_text(encoding="utf-8")),
            environment=mask_environment(json.loads(run_dir.environment_json.read_text(encoding="utf-8"))),
            speed=(f"{task.unit}/s", per_second),
            opening=opening,
        )
        run_dir.write_text(run_dir.report_html, page)
    return found


def show_results(run_dir: RunDirectory, *, model: Path) -> None:
    """Prints the report, long tables shortened, and where everything lies."""
    print(shorten_tables(run_dir.report_txt.read_text(encoding="utf-8"), where=str(run_dir.report_txt)))
    say(f"report       {run_dir.report_html}")
    say(f"model        {model}")
    say(f"all results  {run_dir.path}")


def shorten_tables(report: str, *, where: str) -> str:
    """A report for a screen: of a table of very many rows the first ones, and what sums it up below its last rule."""
    blocks = []
    for block in report.split("\n\n\n"):
        lines = block.split("\n")
        rules = [number for number, line in enumerate(lines) if line and not line.strip("-")]
        last = rules[-1] if len(rules) > 1 else len(lines)
        first = rules[0] + 1 + SHOWN_ROWS if rules else last
        if last - first > SHOWN_ROWS:
            lines = [*lines[:first], f"... {last - first:,} more rows: {where}", *lines[last:]]
        blocks.append("\n".join(lines))
    return "\n\n\n".join(blocks)


def build_validation(model: TaskModel, encoder: Encoder, config: Config) -> Callable[[], dict[str, float]] | None:
    """A function that scores the validation split with the model's network as it is then; None without one.

    The first of its numbers is the headline, which chooses the best weights.
    """
    valid = open_split(config, "valid", labels=model.labels)
    if valid is None:
        return None
    predictor = build_predictor(model, encoder, batch_size=config.evaluation.batch_size)

    def validate() -> dict[str, float]:
        scored = score(predictor, valid.examples())
        loss = model.task.measure_loss(model, scored.examples, scored.answers)
        return scored.curve | {"loss": loss}

    return validate


def finish_run(
    model: TaskModel, metrics: dict, *, card: str, config: Config, run_dir: RunDirectory, mode: str
) -> dict:
    """Writes the numbers and the model of a trained model, and scores it; for the chief.

    A kill loses nothing: until the run is marked as trained, the last checkpoint leads here again; from then on, the
    model is scored by `score_again`. The checkpoints go when all is written.

    Returns:
        all numbers.
    """
    variables = model.whole.trainable_variables
    metrics = metrics | {"weights_sha256": sha256_of_arrays((v.name, v.numpy()) for v in variables)}
    again = run_dir.read_metrics().get("weights_sha256") == metrics["weights_sha256"]  # killed later than here
    metrics = {name: value for name, value in run_dir.write_training_metrics(metrics).items() if name in metrics}
    save_model(model, run_dir.model, shape_count=NUM_SHAPES, card=card)
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
    model = load_model(run_dir.model)
    encoder = build_encoder(model, config.data)
    scored: dict = {}
    settings: PredictConfig | None = None  # known when the first split has been learnt from
    opened = {split: open_split(config, split, labels=model.labels) for split in ("valid", "test")}
    splits = {split: corpus for split, corpus in opened.items() if corpus}
    known = run_dir.read_metrics() if again else {}
    if again:
        learnt = {"train": open_split(config, "train")} if Path(config.data.train_path).exists() else {}
        present = {split: corpus for split, corpus in (learnt | splits).items() if corpus}
        corpora = describe_corpora(config.data, {split: summarize(corpus, config) for split, corpus in present.items()})
        check_same_corpora(run_dir, corpora)
        note_corpora(run_dir, corpora)
    predictor = build_predictor(model, encoder, batch_size=config.evaluation.batch_size)
    if model.exits:
        if "valid" in splits:
            model = _learn_exits(predictor, splits["valid"], config, run_dir)
        predictor = build_predictor(
            model, encoder, batch_size=config.evaluation.batch_size, config=config.predict
        )
    for split, corpus in splits.items():
        answered, seconds = _answer_timed(predictor, corpus.examples(), split=split)
        learns = split == "valid" and not model.exits
        if learns and (facts := model.task.calibrate(model, *answered)):
            model = dataclasses.replace(model, facts={**model.facts, **facts})
            save_facts(model, run_dir.model)
            predictor = dataclasses.replace(predictor, model=model)
        settings = settings or _usable(config.predict, model)
        found = model.task.score(model, *answered, settings)
        per_second = known.get(f"{split}/{model.task.unit}_per_second") or found.units / seconds
        scored |= write_scores(
            predictor,
            found,
            split=split,
            run_dir=run_dir,
            headline=split == list(splits)[-1],
            per_second=per_second,
        )
    run_dir.complete(keep_checkpoints=config.training.keep_checkpoints)
    if splits:
        show_results(run_dir, model=run_dir.model)
    return scored


def _learn_exits(predictor: Predictor, valid: Corpus, config: Config, run_dir: RunDirectory) -> TaskModel:
    """The model with what validation teaches it, the thresholds of its exits among it; in its bundle as well."""
    examples = list(valid.examples())
    before = predictor.model

    def learn(answers: Sequence[Any]) -> TaskModel:
        facts = before.task.calibrate(before, examples, answers)
        return dataclasses.replace(before, facts={**before.facts, **facts})

    usable = dataclasses.replace(config.predict, min_score=0.0, target_precision=0.0)
    model, rows = measure_exits(predictor, examples, learn=learn, config=usable)
    save_facts(model, run_dir.model)
    say(describe_choice(model, rows, config.predict))
    return model


def _usable(settings: PredictConfig, model: TaskModel) -> PredictConfig:
    """Settings without a precision that no minimum score of the model reaches: no training is lost for that."""
    try:
        check_settings(model.task.name, model.facts, settings)
    except InputError as error:
        say(f"warning: the run is scored without a minimum score: {error}")
        return dataclasses.replace(settings, min_score=0.0, target_precision=0.0)
    return settings
