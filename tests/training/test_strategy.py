"""Which devices train, and that their number and the process do not change what is learnt."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from app.config import InputError, TrainingConfig
from app.training.strategy import build_strategy, resolve_precision

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)


def test_auto_on_a_machine_without_several_gpus_is_one_device():
    if len(tf.config.list_physical_devices("GPU")) > 1:
        pytest.skip("several GPUs here")
    for name in ("auto", "one_device"):
        strategy = build_strategy(TrainingConfig(strategy=name))
        assert isinstance(strategy, tf.distribute.OneDeviceStrategy) and strategy.num_replicas_in_sync == 1


# Both the sum and another operation read `a`; which is done with it first decided in what order the sum was added up.
SUMS = """
import numpy as np
import tensorflow as tf
from app.config import TrainingConfig
from app.training.strategy import build_strategy, set_up

config = TrainingConfig(precision="float32")
build_strategy(config)
set_up(config, seed=0)
parts = [tf.constant(part, tf.float32) for part in np.random.default_rng(0).normal(size=(3, 1536, 384))]

@tf.function
def add():
    a, b, c = map(tf.exp, parts)
    return tf.add_n([a, b, c]), tf.reduce_sum(a), tf.reduce_sum(tf.sin(b))

print(len({add()[0].numpy().tobytes() for _ in range(50)}))
"""


def test_a_deterministic_run_adds_up_in_one_order():
    done = subprocess.run([sys.executable, "-c", SUMS], capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.split()[-1] == "1"


def test_mirrored_without_gpus_runs_on_the_processor():
    assert isinstance(build_strategy(TrainingConfig(strategy="mirrored")), tf.distribute.MirroredStrategy)


def test_a_cluster_of_one_worker_is_one_device(monkeypatch):
    cluster = {"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert build_strategy(TrainingConfig()).num_replicas_in_sync == 1


@pytest.mark.parametrize("value", [None, "{}", '{"cluster": {"worker": ["localhost:1"]}}'])
def test_multi_worker_without_workers_is_bad_input(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(InputError, match=r"multi_worker, which needs the environment variable TF_CONFIG"):
        build_strategy(TrainingConfig(strategy="multi_worker"))


@pytest.mark.parametrize("value", ["{", "[]", '"worker"', '{"cluster": []}', '{"cluster": {"worker": 3}}'])
def test_a_broken_cluster_description_is_bad_input(monkeypatch, value):
    monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(InputError, match="TF_CONFIG"):
        build_strategy(TrainingConfig())


def test_a_tpu_without_an_address_is_bad_input():
    with pytest.raises(InputError, match=r"training.tpu_address"):
        build_strategy(TrainingConfig(strategy="tpu"))


def test_lazy_embeddings_on_several_replicas_are_bad_input():
    config = TrainingConfig(strategy="mirrored", logical_devices=2, batch_size=4, lazy_embeddings=True)
    with pytest.raises(InputError, match=r"training\.lazy_embeddings works on one device, received 2 replicas"):
        build_strategy(config)


def test_a_batch_that_cannot_be_shared_out_is_bad_input():
    with pytest.raises(InputError, match=r"training.batch_size must be a multiple of 3 .*received 8"):
        build_strategy(TrainingConfig(strategy="one_device", batch_size=8, accumulation_steps=3))


def test_precision_is_what_was_asked_for_and_bfloat16_on_a_tpu():
    for name in ("float32", "mixed_bfloat16", "mixed_float16"):
        assert resolve_precision(TrainingConfig(precision=name)) == name
    assert resolve_precision(TrainingConfig(strategy="tpu", tpu_address="local")) == "mixed_bfloat16"


REPLICAS = """
import sys
from pathlib import Path
import app
sys.path[:0] = [str(Path({here!r})), str(Path({here!r}).parent)]
import numpy as np
import tensorflow as tf
from test_fit import TRAINING, Run, crash, keras, make_tagger, make_tuner, replace, weights_of
from app.training.strategy import set_up
folder, vocabulary = Path(sys.argv[1]), Path(sys.argv[2])
# An epsilon at which the last bits of a gradient near 0 do not decide about the sign of a step; and everything by which
# the step of one variable differs from that of another.
CONFIG = replace(
    TRAINING, epochs=2, learning_rate=2e-3, epsilon=1e-3, precision="float32", average_weights_decay=0.5,
    layer_learning_rate_decay=0.3, head_learning_rate_multiplier=3.0, weight_decay=0.3, clip_norm=0.5,
)

def train(strategy, name, config=CONFIG, **more):
    with strategy.scope():
        run = Run(folder / name, vocabulary, config, freeze=True, **more)
        run.fit()
    return run

# Of every replica: what can be read of a variable is the first one's copy.
def check_same_weights(one, other):
    for expected, variable in zip(weights_of(one), other.network.variables, strict=True):
        copies = mirrored.experimental_local_results(variable)
        assert len(copies) == 2
        for copy in copies:
            np.testing.assert_allclose(copy.numpy(), expected, atol=1e-5, err_msg=copy.name)

# Steps of the optimizer alone, on gradients that all replicas have in common.
def take_steps(strategy, config):
    with strategy.scope():
        tagger = make_tagger(vocabulary, num_layers=2, freeze=True)
        depths, variables = tagger.layer_depths(), tagger.network.trainable_variables
        optimizer = make_tuner(tagger, config).make_optimizer(
            config, total_steps=4, depths=depths, precision="mixed_bfloat16"
        )
        random = np.random.default_rng(0)
        for _ in range(3):
            gradients = [tf.constant(random.normal(size=v.shape), tf.float32) for v in variables]
            pairs = list(zip(gradients, variables))
            strategy.run(lambda: optimizer.apply_gradients(pairs, experimental_aggregate_gradients=False))
    return tagger

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
set_up(CONFIG, seed=1)
one = train(tf.distribute.OneDeviceStrategy("CPU:0"), "one")
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
# Two replicas, each in two parts, broken off in the second epoch and resumed.
two = replace(CONFIG, accumulation_steps=2, checkpoint_every_steps=2)
with mirrored.scope():
    broken = Run(folder / "two", vocabulary, two, freeze=True)
    try:
        broken.fit(batches=broken.batches_with(crash, at=broken.steps + 4))
    except tf.errors.OpError:
        pass
resumed = train(mirrored, "two", two, seed=9)
assert [len(run.rows) for run in (broken, resumed)] == [1, 1]
assert abs(broken.rows[0]["loss"] / one.rows[0]["loss"] - 1) < 1e-4
check_same_weights(one.tagger, resumed.tagger)

logged = []
with mirrored.scope():
    run = Run(folder / "steps", vocabulary, CONFIG)
    tuner = make_tuner(run.tagger, CONFIG)
    tuner.compile(optimizer=keras.optimizers.legacy.SGD(0.1))
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: logged.append(dict(logs)))
    tuner.fit(run.batches(0, 0), steps_per_epoch=1, callbacks=[note], verbose=0)
assert abs(logged[0]["step_loss"] - logged[0]["loss"]) < 1e-5, logged

keras.mixed_precision.set_global_policy("mixed_bfloat16")  # Keras wraps variables then
for name in ("adamw", "lamb"):
    config = replace(CONFIG, optimizer=name, learning_rate=0.1)
    check_same_weights(*(take_steps(each, config) for each in (tf.distribute.OneDeviceStrategy("CPU:0"), mirrored)))
import app.training.speed as speed
speed.MATRIX_SIZES = (256,)
peak = speed.MatrixPeak(mirrored, "float32")
peak.measure()
assert peak.compute_total() > 1e6 and "on all 2 replicas at once" in peak.describe(), peak.describe()

print("same")
"""


@pytest.mark.slow
def test_two_replicas_learn_what_one_device_learns_and_resume_where_they_stopped(tmp_path, vocabulary):
    script = REPLICAS.format(here=str(HERE))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(vocabulary)], cwd=HERE.parents[1],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "same"
