"""Modes room: what every mode that trains a tagger does alike: read the corpora, start a tagger, fit it, score it."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import tensorflow as tf

from app.artifacts import Request, RunDirectory, sha256_of_arrays
from app.config import Config, DataConfig, InputError, TrainingConfig
from app.data.corpus import Corpus, CorpusSummary, summarize
from app.data.corpus_checks import check_scored, check_types, describe_shared_text, find_shared_text
from app.data.dataset import RowStore, store_in_memory, store_in_records
from app.data.encoding import Encoder
from app.data.packing import Example
from app.data.shapes import NUM_SHAPES
from app.heartbeat import heartbeat
from app.models.activation import compile_activations
from app.models.backbone import build_backbone
from app.models.tagger import Tagger, build_tagger
from app.models.tagger_bundle import load_tagger, read_non_name_types, restore_head, save_tagger
from app.modes.corpora import check_same_corpora, describe_corpora, note_corpora
from app.modes.opening import open_finished_run
from app.modes.scoring import Tagged, build_encoder, build_predictor, open_split, say, score_split, show_results
from app.training.fine_tuner import FineTuner, SpecialIds
from app.training.fit import Plan
from app.training.kept_structure import KeptStructure
from app.training.workers import Workers


def read_training_corpus(config: Config, *, labels: list[str] | None = None) -> tuple[Corpus, CorpusSummary]:
    """The training corpus and what one pass over it finds; what was repaired is said.

    Args:
        config: its section data.
        labels: the only ones allowed, of a model that there is already.
    """
    train = open_split(config.data, "train", labels=labels)
    if train is None:
        raise InputError("data.train_path is empty; fine-tuning needs a training corpus")
    with heartbeat(f"reading {train.source}"):
        summary = summarize(train)
    report_training_corpus(summary)
    return train, summary


def report_training_corpus(summary: CorpusSummary) -> None:
    """Says what was repaired in a training corpus and what is odd about its labels."""
    if summary.repaired:
        say(f"{summary.source}: {summary.repaired} I- tags that began an entity were read as B-")
    for warning in check_types(summary):
        say(f"warning: {warning}")


def labelled_sources(data: DataConfig) -> list[str]:
    """What is learnt from with labels, for a model card."""
    return [path for path in (data.train_path, data.valid_path if data.train_on_valid else "") if path]


def check_other_splits(
    config: Config, labels: Sequence[str], *, train: Corpus | None = None, words: int = 0
) -> dict[str, CorpusSummary]:
    """Reads the other splits once before training, so that a fault in them does not come to light an hour later.

    Says what is odd about them: no validation corpus, no entity, text of the training corpus.

    Args:
        config: its section data.
        labels: the only ones allowed.
        train: the training corpus; None if there is none.
        words: in the training corpus; in a large one, text of the others is not looked for.

    Returns:
        what is in those that there are.
    """
    others: dict[str, Corpus] = {}
    summaries: dict[str, CorpusSummary] = {}
    for split in ("valid", "test"):
        corpus = open_split(config.data, split, labels=labels)
        if corpus is None:
            continue
        with heartbeat(f"reading {corpus.source}"):
            others[split], summary = corpus, summarize(corpus)
        summaries[split] = summary
        for warning in check_scored(summary):
            say(f"warning: {warning}")
        if split == "valid" and config.data.valid_fraction:
            say(f"{summary.source}: {summary.sentences:,} sentences, {summary.documents:,} documents")
    if "valid" not in others and train and not config.data.train_on_valid:
        say(
            "no validation corpus (data.valid_path is empty): the last weights are kept, not the best ones; name one, "
            "or set a part of the training corpus aside with data.valid_fraction=0.1"
        )
    if train and words <= config.data.memory_limit_words:
        sources = {split: corpus.source for split, corpus in others.items()}
        for warning in describe_shared_text(find_shared_text(train, others), sources):
            say(f"warning: {warning}")
    return summaries


def start_tagger(config: Config, labels: Sequence[str], *, init_from: str = "") -> Tagger:
    """A tagger to train, to be called in the strategy's scope after `set_up`.

    Args:
        config: its sections backbone, model and training.
        labels: label names in id order.
        init_from: run directory whose weights it takes, head included; empty = those of `backbone.source`.
    """
    source = init_from or config.backbone.source
    backbone = build_backbone(dataclasses.replace(config.backbone, source=source))
    compile_activations(backbone.model, config.training.compile_activations)
    tagger = build_tagger(
        backbone,
        config.model,
        labels=labels,
        shape_count=NUM_SHAPES,
        freeze_embeddings=config.training.freeze_embeddings,
    )
    if init_from:
        folder = RunDirectory(init_from).model
        restore_head(tagger, folder)
        tagger = dataclasses.replace(tagger, non_name_types=read_non_name_types(folder))
    return tagger


@dataclasses.dataclass(frozen=True)
class TaggerTraining:
    """What the training phases of one run share.

    Attributes:
        config: of the run.
        run_dir: of the run; opened.
        strategy: the devices.
        precision: what `set_up` returned.
    """

    config: Config
    run_dir: RunDirectory
    strategy: tf.distribute.Strategy
    precision: str

    def store(self, rows: Iterable[Example], encoder: Encoder, *, words: int, made_from: object) -> RowStore:
        """Rows in memory for a corpus that fits there, else in TFRecord files, of which each worker has its own.

        Args:
            rows: what `encoder` makes of the corpus.
            encoder: that made them.
            words: in the corpus.
            made_from: describes the corpus; its `repr` tells finished files of another corpus apart.
        """
        config = self.config.data
        large = words > config.memory_limit_words
        if config.cache == "memory" or (config.cache == "auto" and not large):
            with heartbeat("cutting the corpus into sequences"):
                return store_in_memory(rows)
        settings = (made_from, encoder.labels, encoder.pieces.vocabulary, encoder.pieces.lowercase, config)
        fingerprint = hashlib.sha256(repr(settings).encode()).hexdigest()
        # Another run that is reading the folder of its rows must not lose them.
        folder = Path(config.cache_dir) / fingerprint[:16] if config.cache_dir else self.run_dir.cache
        worker = Workers(self.strategy).index
        if worker:
            folder = folder / f"worker-{worker}"
        with heartbeat("writing the cache of sequences"):
            return store_in_records(
                rows, folder, fingerprint=fingerprint, shuffle_buffer=config.shuffle_buffer_sequences
            )

    def validation(self, tagger: Tagger, encoder: Encoder) -> Callable[[], dict[str, float]] | None:
        """A function that scores the validation split with the tagger's network as it is then; None without one."""
        valid = open_split(self.config.data, "valid", labels=tagger.labels)
        if valid is None:
            return None
        predictor = build_predictor(tagger, encoder, batch_size=self.config.evaluation.batch_size)

        def validate() -> dict[str, float]:
            tagged = Tagged.by(predictor, valid.sentences(), keep_emissions=True)
            scores, loss = tagged.scores(), tagger.head.measure_loss(tagged.emissions, tagged.gold)
            return {"entity_f1": scores.strict.micro.f1, "token_macro_f1": scores.token.macro.f1, "loss": loss}

        return validate

    def plan(
        self,
        store: RowStore,
        settings: TrainingConfig,
        *,
        depths: Sequence[int],
        validate: Callable[[], dict[str, float]] | None,
        phase: str = "",
        seed: int | None = None,
    ) -> Plan:
        """The plan of one phase.

        Args:
            store: rows to train on; they may carry more than labels.
            settings: the training section, with the epochs of this phase.
            depths: of the trainable variables of the network, in its order.
            validate: scores the validation split.
            phase: its name: checkpoints go to a folder of their own and history.jsonl gets `PHASE/` before each
                number. Empty for the one phase that the run is for.
            seed: of the order of the rows; None for the run's.
        """
        folder, prefix = (self.run_dir.checkpoints / phase, f"{phase}/") if phase else (self.run_dir.checkpoints, "")
        order = self.config.seed if seed is None else seed
        return Plan(
            batches=lambda epoch, step: store.make_dataset(
                batch_size=settings.batch_size, seed=order, epochs=settings.epochs, first_epoch=epoch, first_step=step
            ),
            steps_per_epoch=store.steps_per_epoch(settings.batch_size),
            depths=depths,
            precision=self.precision,
            checkpoints=folder,
            tensorboard=self.run_dir.tensorboard / phase if settings.tensorboard else None,
            validate=validate,
            name=f"{phase.replace('/', ' ').replace('_', ' ')} " if phase else "",
            log=lambda row: self.run_dir.append_jsonl(
                self.run_dir.history_jsonl, {f"{prefix}{name}": value for name, value in row.items()}
            ),
            forget=lambda epochs: self.run_dir.rewind_history(f"{prefix}epoch", epochs),
        )

    def tuner(self, tagger: Tagger, encoder: Encoder, settings: TrainingConfig) -> FineTuner:
        """Trains a tagger on the labels of the rows. Call inside the strategy's scope."""
        return FineTuner(
            tagger.network,
            tagger.head.compute_loss,
            special=SpecialIds.of(encoder.pieces),
            config=settings,
            seed=self.config.seed,
            keep=KeptStructure.find(tagger.network.trainable_variables) if settings.keep_structure else None,
        )


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
