"""Training room: what the teachers say of every sequence, asked once and kept beside the rows."""

import numpy as np
import tensorflow as tf

from app.data.dataset import RowsInMemory, RowStore
from app.data.packing import FEATURES
from app.run.screen import count_of, heartbeat
from app.tasks.network import LOGITS
from app.training.distillation.tuner import ANSWER, DistillationTuner

MOST_BYTES = 2**30  # of all kept answers


def are_kept(store: RowStore, tuner: DistillationTuner, *, strategy: tf.distribute.Strategy, epochs: int) -> bool:
    """Whether answers are kept: not without `distill.keep_answers`, where more than logits is compared, the rows are
    too many for memory, or asking at every step is no slower: one device asks here, all replicas there.
    """
    worth_it = epochs > strategy.num_replicas_in_sync and not isinstance(strategy, tf.distribute.TPUStrategy)
    may_be = tuner.distill.keep_answers and tuner.compares_labels_alone and isinstance(store, RowsInMemory)
    return bool(worth_it and may_be)


def keep_answers(
    store: RowStore, tuner: DistillationTuner, *, strategy: tf.distribute.Strategy, batch_size: int, epochs: int
) -> RowStore:
    """The rows with the logits of each teacher, so that no step has to ask for them.

    A teacher reads the same sequence in every epoch, without dropout, and says the same of it every time.

    Args:
        store: rows to train on.
        tuner: has the teachers.
        strategy: of the training.
        batch_size: rows that are asked for at once.
        epochs: of the training.

    Returns:
        the store as it is where no answers are kept (`are_kept`), or they are too many for memory.
    """
    if not (are_kept(store, tuner, strategy=strategy, epochs=epochs) and isinstance(store, RowsInMemory)):
        return store
    ask = tf.function(lambda features: [answer[LOGITS] for answer in tuner.ask(features)])

    def answers_of(first: int) -> list[tf.Tensor]:
        return ask({name: tf.constant(store.columns[name][first : first + batch_size]) for name in FEATURES})

    beginning = answers_of(0)
    bytes_a_row = sum(4 * int(np.prod(logits.shape[1:])) for logits in beginning)
    if store.rows * bytes_a_row > MOST_BYTES:
        return store
    kept = [np.zeros([store.rows, *logits.shape[1:]], np.float32) for logits in beginning]
    asked = 0
    with heartbeat("asking the teachers", so_far=lambda: f"{asked:,} of {count_of(store.rows, 'sequence')}"):
        for first in range(0, store.rows, batch_size):
            for column, logits in zip(kept, answers_of(first) if first else beginning, strict=True):
                column[first : first + batch_size] = logits
            asked = min(first + batch_size, store.rows)
    return store.with_columns({f"{ANSWER}{number:03d}": column for number, column in enumerate(kept)})
