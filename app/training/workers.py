"""Training room: the processes of a run on several machines: who they are, who is there, what they agree on."""

import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import tensorflow as tf

from app.config import InputError, LostWorkerError
from app.training.cluster import Cluster, bind_own_port, read_cluster

_SECONDS_BETWEEN_TRIES = 0.2
# How TensorFlow and gRPC name the end of a peer.
_LOSSES = ("socket closed", "connection re", "failed to connect", "unavailable", "heartbeat", "broken pipe", "is down")


def wait_for_workers(cluster: Cluster, *, seconds: float) -> None:
    """Returns when every other worker can be reached; shows itself at its own address meanwhile.

    TensorFlow would wait for ever and not say for whom. Its server takes over the address afterwards, so a worker that
    is late finds somebody there in either case.

    Raises:
        InputError: this worker's port is taken, or another worker cannot be reached in time; names the address.
    """
    with closing(bind_own_port(cluster)) as own:
        own.listen(2 * len(cluster.addresses))
        limit = time.monotonic() + seconds
        missing = [index for index in range(len(cluster.addresses)) if index != cluster.index]
        while True:
            missing = [index for index in missing if not _answers(cluster.addresses[index])]
            if not missing:
                return
            if time.monotonic() > limit:
                named = ", ".join(f"{index} at {cluster.addresses[index]}" for index in missing)
                raise InputError(
                    f"worker {cluster.index} could not reach worker {named} in {seconds:g} seconds "
                    "(training.worker_timeout_seconds): start every worker that TF_CONFIG lists"
                )
            time.sleep(_SECONDS_BETWEEN_TRIES)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True


class Workers:
    """The processes that train together under a strategy; with one process, nothing here costs anything.

    Each method that exchanges something must be called by all workers, in the same order.

    Args:
        strategy: that they train under.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        cluster = read_cluster() if several else Cluster((), 0)
        self.index = cluster.index
        self.count = max(1, len(cluster.addresses))

    @property
    def is_chief(self) -> bool:
        """Whether this is the one process that writes the run directory."""
        return self.index == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over the workers."""
        if self.count == 1:
            return list(values)
        return self._sums(tf.constant(values, tf.float64)).numpy().tolist()

    def from_chief(self, values: Sequence[float]) -> list[float]:
        """The chief's values, exactly, on every worker; the others only say how many they expect."""
        return self.total(values if self.is_chief else [0.0] * len(values))

    def wait(self) -> None:
        """Returns when every worker has come here."""
        self.total([0.0])

    @contextmanager
    def chief_first(self) -> Iterator[None]:
        """The chief runs the block first, the others when it is done: what it makes there, they find."""
        if not self.is_chief:
            self.wait()
        yield
        if self.is_chief:
            self.wait()

    @tf.function(reduce_retracing=True)
    def _sums(self, values: tf.Tensor) -> tf.Tensor:
        local = self._strategy.num_replicas_in_sync // self.count

        def add(values: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = tf.equal(context.replica_id_in_sync_group % local, 0)  # one replica speaks for its worker
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(first, values, tf.zeros_like(values)))

        return self._strategy.experimental_local_results(self._strategy.run(add, args=(values,)))[0]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turns what TensorFlow raises when another worker ends into one sentence.

        Raises:
            LostWorkerError: another worker has ended or cannot be reached any more.
        """
        try:
            yield
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
                tf.errors.FailedPreconditionError, tf.errors.DeadlineExceededError) as error:  # fmt: skip
            if self.count == 1:
                raise
            raise LostWorkerError(
                f"worker {self.index} lost another worker ({_first_cause(str(error.message))}); start all workers "
                "again with the same command, they go on from the last checkpoint"
            ) from error


def _first_cause(message: str) -> str:
    """What went wrong, out of a message of TensorFlow that may begin with where in the graph it went wrong."""
    lines = [line.strip() for line in message.splitlines()]
    known = (line for line in lines if any(sign in line.lower() for sign in _LOSSES))
    cause = next(known, "it ended, or cannot be reached any more")
    # TensorFlow appends which operation noticed it, and what to try.
    cause = re.split(r"\s*(?:\[?\[\{\{|\[Op:|Additional GRPC|The error could be from|:\s*$)", cause)[0]
    return cause.rstrip(" .:")[:200]
