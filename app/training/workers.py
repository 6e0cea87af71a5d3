"""Training room: the processes of a run on several machines: who they are, who is there, what they agree on."""

import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import tensorflow as tf

from app.config import InputError, LostWorkerError, RunError
from app.run.directory import atomic
from app.training.cluster import Cluster, bind_own_port, read_cluster

_SECONDS_BETWEEN_TRIES = 0.2
# How TensorFlow and gRPC name the end of a peer.
_LOSSES = (
    "socket closed", "connection re", "connection timed out", "failed to connect", "heartbeat", "broken pipe",
    "is down", "incarnation", "waiting for other workers", "error reported from /job:", "has likely restarted",
    "keepalive watchdog timeout", "transport closed", "no route to host",
)  # fmt: skip
# Storage in a cloud is reached over connections, too.
_NO_WORKER = ("http", "curl", "gs://", "s3://", "hdfs://")
# Errors that may mean the end of a peer: the first if they say so, the second also where they give no reason.
_MAY_NAME_A_LOSS = (tf.errors.InternalError, tf.errors.FailedPreconditionError, tf.errors.UnknownError)
_MAY_BE_A_LOSS = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError,
)  # fmt: skip
_SECONDS_FOR_A_REPORT = 3.0  # until a file that another worker wrote shows on a network drive
_BAD_INPUT, _FAILED = 2, 1


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
    def watched(self, folder: Path | None = None) -> Iterator[None]:
        """Turns what TensorFlow raises when another worker ends into one sentence.

        A worker that fails by itself leaves a note in the folder, so that the others, to whom it is lost, end with its
        message and status, and no launcher starts a run again that would fail again.

        Args:
            folder: of the run, which every worker sees.

        Raises:
            LostWorkerError: another worker has ended or cannot be reached any more.
            RunError: another worker has failed; InputError: by bad input.
        """
        if self.count == 1:
            yield
            return
        start = 0.0
        try:
            if folder:
                (start,) = self.from_chief([time.time()])  # tells notes of this start from those of an earlier one
            yield
        except Exception as error:
            found = self._explain_end(error, folder, start) if self._is_loss(error) else error
            if found is error and folder:
                _leave_note(folder, self.index, start, error)
            found.leave_at_once = True  # type: ignore[attr-defined]  # for `app.main`
            if found is error:
                raise
            raise found from error

    def _is_loss(self, error: Exception) -> bool:
        """Whether an error means that another worker is gone; where the error does not say, they are all tried."""
        named = names_lost_worker(error)
        if named is not None:
            return named
        others = [address for number, address in enumerate(read_cluster().addresses) if number != self.index]
        return not all(map(_answers, others))

    def _explain_end(self, error: Exception, folder: Path | None, start: float) -> Exception:
        note = _find_note(folder, self.index, start) if folder else None
        if note:
            kind = InputError if note["status"] == _BAD_INPUT else RunError
            return kind(f"worker {note['worker']} has failed, so worker {self.index} ends, too: {note['message']}")
        return LostWorkerError(
            f"worker {self.index} lost another worker ({_first_cause(str(error))}); start all workers "
            "again with the same command, they continue from the last checkpoint"
        )


def names_lost_worker(error: Exception) -> bool | None:
    """Whether an error means that another worker is gone; None if it gives no reason and may mean it.

    What fails in this process alone (memory, disk, a bug) has the same classes at times, but another text.
    """
    if not isinstance(error, _MAY_NAME_A_LOSS + _MAY_BE_A_LOSS):
        return False
    text = str(error.message).lower()
    if any(sign in text for sign in _NO_WORKER):
        return False
    if any(sign in text for sign in _LOSSES):
        return True
    aborted = re.search(r"collective ops is aborted by: *(\S+)", text)  # by something that failed here
    return None if isinstance(error, _MAY_BE_A_LOSS) and not aborted else False


def _note(folder: Path, index: int | str) -> Path:
    return folder / f".worker-{index}-failed.json"


def _leave_note(folder: Path, index: int, start: float, error: Exception) -> None:
    message = str(error)
    if not isinstance(error, InputError | RunError):
        message = f"{type(error).__name__}: {(message.strip().splitlines() or [''])[-1][:300]}"
    status = _BAD_INPUT if isinstance(error, InputError) else _FAILED
    note = {"worker": index, "start": start, "status": status, "message": message}
    with suppress(OSError):  # a full disk may be what failed
        if folder.is_dir():
            with atomic(_note(folder, index)) as path:
                path.write_text(json.dumps(note), encoding="utf-8")


def _find_note(folder: Path, own_index: int, start: float) -> dict | None:
    """What another worker of this start said when it failed."""
    limit = time.monotonic() + _SECONDS_FOR_A_REPORT
    while True:
        for path in sorted(folder.glob(_note(folder, "*").name)):
            with suppress(OSError, ValueError):
                note = json.loads(path.read_text(encoding="utf-8"))
                if note["start"] == start and note["worker"] != own_index:
                    return dict(note)
        if time.monotonic() > limit:
            return None
        time.sleep(_SECONDS_BETWEEN_TRIES)


def remove_notes(folder: Path) -> None:
    """Removes what workers of an earlier start left in the folder of the run; for the chief."""
    for path in folder.glob(_note(folder, "*").name):
        path.unlink(missing_ok=True)


def _first_cause(message: str) -> str:
    """What went wrong, out of a message of TensorFlow that may begin with where in the graph it went wrong."""
    lines = [line.strip() for line in message.splitlines()]
    known = (line for line in lines if any(sign in line.lower() for sign in _LOSSES))
    cause = next(known, "it ended, or cannot be reached any more")
    # TensorFlow appends which operation noticed it, and what to try.
    cause = re.split(r"\s*(?:\[?\[\{\{|\[Op:|Additional GRPC|The error could be from|:\s*$)", cause)[0]
    return cause.rstrip(" .:")[:200]
