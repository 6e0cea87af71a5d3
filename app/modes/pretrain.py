"""Modes room: masked-language-model pretraining of a backbone from raw text."""

import dataclasses
import gc

import tensorflow as tf

from app.config import BackboneConfig, Config
from app.config.rules import check_lengths
from app.data.dataset import RowStore
from app.encoder.activation import compile_activations
from app.encoder.backbone import Backbone, build_backbone, fits_preset, save_backbone, save_preset
from app.run.directory import Request, RunDirectory, sha256_of_arrays
from app.run.screen import heartbeat, say
from app.tasks.masked_lm.masking import PieceMasker, with_masks
from app.training.fine_tuner import SpecialIds
from app.training.fit import run_fit
from app.training.masked_lm import build_masked_scorer
from app.training.memory import compute_long_batch
from app.training.model_parallel import MeshMaskedLmTuner, build_mesh, check_cuts
from app.training.plan import Plan
from app.training.pretraining import PretrainingNetwork, Records, check_text, learn_vocabulary
from app.training.sessions import open_finished_run, open_run, say_devices
from app.training.speed import MatrixPeak, MeasurePeak, compute_step_operations
from app.training.strategy import build_strategy, list_devices, set_up
from app.training.trials import decide
from app.training.workers import Workers

MODE = "pretrain"
_HELD_OUT_SEED = 12345  # of the masks of the held-out text, the same at every scoring


def run(request: Request) -> dict[str, float]:
    """Makes the training records, or what is missing of them, trains, and scores held-out text."""
    run_dir = request.run_dir
    plan = run_dir.plan_training(request.config, mode=MODE, overwrite=request.overwrite)
    if plan == "finished":
        return _show_again(request)
    with heartbeat("reading the text"):
        check_text(request.config, to_the_end=plan == "overwrite")  # while the run that is there is still whole
    request = decide(request, mode=MODE)
    config = request.config
    # Before anything computes with TensorFlow.
    mesh = build_mesh(config.pretrain.model_parallel) if config.pretrain.model_parallel > 1 else None
    strategy = tf.distribute.get_strategy() if mesh else build_strategy(config.training)
    workers = Workers(strategy)
    with workers.watched(run_dir.path):
        training = dataclasses.replace(config.training, precision="float32") if mesh else config.training
        precision = set_up(training, seed=config.seed)
        backbone = records = None
        if not config.pretrain.vocabulary_size:  # what needs no run directory is tried before it is touched
            backbone = _build(config.backbone, config, strategy)
            if mesh:
                check_cuts(backbone.model, mesh.size)
            records = _open_records(config, run_dir, backbone, workers) if config.pretrain.records_dir else None
        with open_run(request, workers, mode=MODE):
            say_devices(mesh.local_devices() if mesh else list_devices(strategy), precision, workers)
            backbone = backbone or _build(learn_vocabulary(config, run_dir, workers), config, strategy)
            records = records or _open_records(config, run_dir, backbone, workers)
            if workers.is_chief:
                if not config.pretrain.valid_path:
                    say("no held-out text (pretrain.valid_path is empty): the last weights are kept, nothing is scored")
                devices = f"{strategy.num_replicas_in_sync} replica(s)"
                say(
                    f"{records.index.documents:,} documents, {records.index.pieces:,} pieces, "
                    f"{records.index.rows:,} rows of {config.pretrain.max_length} | "
                    f"{f'shared out over {mesh.size} devices' if mesh else devices}, {precision}"
                )
            with strategy.scope():
                subject = PretrainingNetwork.of(backbone, pairs=config.pretrain.objective != "masked_lm")
            if mesh:
                subject = subject.share_out(mesh)
                del backbone
                gc.collect()  # Keras's references to what was whole go round in circles
            with records.damage_named():
                peak = MatrixPeak(tf.distribute.MirroredStrategy(mesh.local_devices()) if mesh else strategy, precision)
                metrics = _train(subject, records, config, run_dir, precision, strategy, peak)
            if not workers.is_chief:
                return metrics
            backbone = subject.whole_backbone()
            variables = backbone.model.trainable_variables
            metrics["weights_sha256"] = sha256_of_arrays((v.name, v.numpy()) for v in variables)
            save_backbone(backbone, run_dir.model)
            if fits_preset(backbone):
                save_preset(backbone, run_dir.preset)
            metrics = run_dir.write_training_metrics(metrics)
            run_dir.mark_trained(config, mode=MODE)
            run_dir.complete(keep_checkpoints=config.training.keep_checkpoints)
    _show(metrics, run_dir, peak)
    return metrics


def _show_again(request: Request) -> dict[str, float]:
    """A run that is finished: held-out text was scored when it was trained, so only its numbers are shown."""
    run_dir = request.run_dir
    with open_finished_run(request, mode=MODE) as config:
        if not config:
            return {}
        run_dir.complete(keep_checkpoints=config.training.keep_checkpoints)
        metrics = run_dir.read_metrics()
    _show(metrics, run_dir)
    return metrics


def _build(source: BackboneConfig, config: Config, strategy: tf.distribute.Strategy) -> Backbone:
    settings, setting = config.pretrain, config.training.compile_activations
    with strategy.scope():
        backbone = build_backbone(source)
        compile_activations(backbone.model, setting)
    check_lengths(settings, positions=backbone.model.max_sequence_length)
    return backbone


def _open_records(config: Config, run_dir: RunDirectory, backbone: Backbone, workers: Workers) -> Records:
    with heartbeat("making the training records", shown=workers.is_chief), workers.chief_first():
        return Records(config, run_dir, backbone)


def _train(
    subject: PretrainingNetwork,
    records: Records,
    config: Config,
    run_dir: RunDirectory,
    precision: str,
    strategy: tf.distribute.Strategy,
    peak: MatrixPeak,
) -> dict:
    settings, training, seed = config.pretrain, config.training, config.seed
    masker = PieceMasker.build(records.pieces, fraction=settings.mask_fraction, whole_words=settings.whole_words)
    steps_per_epoch = records.train.steps_per_epoch(training.batch_size)
    held_out = _held_out_batches(records.held_out, masker, config)
    replicas = strategy.num_replicas_in_sync
    stages = _Stages(records, config, steps_per_epoch=steps_per_epoch, replicas=replicas)

    scorer = build_masked_scorer(subject.network)

    def score() -> dict[str, float]:
        return scorer(subject.to_devices(held_out)) if held_out else {}

    with strategy.scope():
        tuner = subject.make_tuner(SpecialIds.of(records.pieces), training, seed=seed)
        plan = Plan(
            batches=lambda epoch, step: with_masks(
                stages.batches(epoch, step), masker, seed=seed, first_step=epoch * steps_per_epoch + step
            ),
            steps_per_epoch=steps_per_epoch,
            depths=subject.depths,
            precision=precision,
            checkpoints=run_dir.checkpoints,
            tensorboard=run_dir.tensorboard if training.tensorboard else None,
            validate=score if held_out else None,
            log=lambda row: run_dir.append_jsonl(run_dir.history_jsonl, row),
            forget=lambda epochs: run_dir.rewind_history("epoch", epochs),
            score="masked_accuracy",
            unit="pieces",
            breaks=stages.breaks,
            callbacks=(MeasurePeak(peak),),
        )
        peak.measure()
        found = run_fit(tuner, training, plan)
        peak.measure()
    with heartbeat("scoring the held-out text", shown=Workers(strategy).is_chief):
        found |= {f"valid/{name}": value for name, value in score().items()}
    if isinstance(tuner, MeshMaskedLmTuner):
        found["train/largest_device_megabytes"] = max(tuner.device_bytes()) / 1e6
    return found | _utilisation(subject.backbone, found, config, peak)


def _held_out_batches(rows: RowStore | None, masker: PieceMasker, config: Config) -> tf.data.Dataset | None:
    if rows is None:
        return None
    batches = rows.make_dataset(batch_size=config.evaluation.batch_size, seed=0, epochs=1)
    return with_masks(batches, masker, seed=_HELD_OUT_SEED, first_step=0)


class _Stages:
    """Short sequences first, long ones in the last epochs (Devlin et al. 2019, appendix A.2).

    A long batch holds as many pieces as a short one, and an epoch is the same number of steps in both stages.

    Attributes:
        breaks: epochs at which the length of the sequences changes.
    """

    def __init__(self, records: Records, config: Config, *, steps_per_epoch: int, replicas: int) -> None:
        settings = config.pretrain
        self._short, self._seed, self._steps = records.train, config.seed, steps_per_epoch
        self._epochs, self._batch_size = config.training.epochs, config.training.batch_size
        self._first_long = self._epochs - settings.long_epochs
        self.breaks: tuple[int, ...] = ()
        if records.long:
            self._long = records.long
            self._long_size = compute_long_batch(
                self._batch_size,
                length=settings.max_length,
                long_length=settings.long_length,
                shares=replicas * config.training.accumulation_steps,
            )
            self.breaks = (self._first_long,)

    def batches(self, epoch: int, step: int) -> tf.data.Dataset:
        """All batches of the stage that holds this position."""
        if epoch < self._first_long:
            return self._short.make_dataset(
                batch_size=self._batch_size,
                seed=self._seed,
                epochs=self._first_long,
                first_epoch=epoch,
                first_step=step,
            )
        passes = self._long.steps_per_epoch(self._long_size)
        done = (epoch - self._first_long) * self._steps + step
        all_steps = (self._epochs - self._first_long) * self._steps
        return self._long.make_dataset(
            batch_size=self._long_size,
            seed=self._seed + 1,
            epochs=-(-all_steps // passes),
            first_epoch=done // passes,
            first_step=done % passes,
        )


def _utilisation(backbone: Backbone, found: dict, config: Config, peak: MatrixPeak) -> dict[str, float]:
    """Share of the machine's fastest matrix products that training used, over all steps and waits."""
    settings, epochs = config.pretrain, config.training.epochs
    model = backbone.model

    def operations_of_a_piece(length: int) -> float:
        operations = compute_step_operations(
            rows=1,
            length=length,
            layers=model.num_layers,
            width=model.hidden_dim,
            inner_width=model.intermediate_dim,
            labels=0,
            hidden_pieces=max(1, round(settings.mask_fraction * length)),
            vocabulary_size=model.vocabulary_size,
        )
        return operations / length

    part = settings.long_epochs / epochs  # a step has as many pieces in both stages
    operations = operations_of_a_piece(settings.max_length)
    if part:
        operations += part * (operations_of_a_piece(settings.long_length) - operations)
    used, most = operations * found["train/pieces_per_second"], peak.compute_total()
    return {"train/matrix_peak_gflops": most / 1e9, "train/share_of_peak": used / most}


def _show(metrics: dict, run_dir: RunDirectory, peak: MatrixPeak | None = None) -> None:
    for name, value in metrics.items():
        if name.startswith(("valid/", "train/")):
            print(f"{name:<28}{value:,.4f}" if isinstance(value, float) else f"{name:<28}{value:,}")
    if peak:
        say(peak.describe())
    say(f"model        {run_dir.model}")
    if run_dir.preset.is_dir():
        say(f"preset       {run_dir.preset}")
    say(f"all results  {run_dir.path}")
    tuned = run_dir.path.with_name(f"{run_dir.path.name}_finetuned")
    command = f"--mode=finetune --set backbone.source={run_dir} --run_dir={tuned}"
    say(f"fine-tune    python -m app.main {command}")
