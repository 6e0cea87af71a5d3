"""Data room: the files of a folder of pretraining records, written through Beam's file systems, local or remote.

A file appears under its name only when it is complete.
"""

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict

from app.artifacts import locked_folder
from app.config import InputError
from app.data.beam import FileSystems
from app.data.pretraining_records import INDEX, Shard
from app.files import named
from app.paths import plain

_TEMPORARY = ".tmp-"


class RecordFolder:
    """A folder of records; making one touches no file. It can be sent to other processes.

    Beam takes names for patterns, even those of files to delete, so it gets `plain` ones.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps other processes of this machine from writing it. A kill frees the lock.

        A remote folder is not locked: Beam's file systems have no locks.

        Raises:
            InputError: the folder cannot be made, or another process holds the lock.
        """
        self._make()
        if "://" in self.path:
            yield
            return
        with locked_folder(self.path, otherwise="name another folder"):
            yield

    def _make(self) -> None:
        try:
            if not FileSystems.exists(self.path):
                FileSystems.mkdirs(self.path)
        except OSError as error:
            if not FileSystems.exists(self.path):  # another worker may have made it meanwhile
                raise InputError(f"the folder {self.path} cannot be made: {error}") from error

    def join(self, name: str) -> str:
        return str(FileSystems.join(self.path if "://" in self.path else plain(self.path), name))

    def sizes(self, pattern: str) -> dict[str, int]:
        """File names that match, sorted, and their bytes."""
        found = FileSystems.match([self.join(pattern)])[0].metadata_list
        return dict(sorted((FileSystems.split(file.path)[1], file.size_in_bytes) for file in found))

    def read(self, name: str) -> str:
        with FileSystems.open(self.join(name)) as file:
            return str(file.read().decode("utf-8"))

    def write(self, name: str, text: str) -> None:
        with self.renamed(name) as temporary, FileSystems.create(temporary) as file:
            file.write(text.encode("utf-8"))

    @contextlib.contextmanager
    def renamed(self, name: str) -> Iterator[str]:
        """Yields a temporary path, which gets its name when the block succeeds. Two workers may do the same."""
        self._make()
        temporary = self.join(f"{_TEMPORARY}{uuid.uuid4().hex}-{name}")
        try:
            with named(f"{self.path}/{name}"):
                yield temporary
        except BaseException:
            self._delete([temporary] if FileSystems.exists(temporary) else [])
            raise
        FileSystems.rename([temporary], [self.join(name)])

    def finish_shard(self, shard: Shard, fingerprint: str) -> None:
        """Marks a shard as finished; called when its rows are written."""
        facts = {"fingerprint": fingerprint, "shard": asdict(shard)}
        self.write(shard.name.replace(".tfrecord", ".json"), json.dumps(facts))

    def finished_shards(self, fingerprint: str) -> dict[str, Shard]:
        """The shards made under this fingerprint whose file has the size that was noted, by name."""
        sizes = self.sizes("rows-*")
        finished = {}
        for name in sizes:
            if name.endswith(".json"):
                facts = json.loads(self.read(name))
                shard = Shard(**facts["shard"])
                if facts["fingerprint"] == fingerprint and sizes.get(shard.name) == shard.size:
                    finished[shard.name] = shard
        return finished

    def note_fault(self, number: int, message: str) -> None:
        self.write(f"rows-{number:05d}.fault", message)

    def first_fault(self) -> str:
        """What the earliest unit with a fault was refused for; empty if there is none."""
        return next((self.read(name) for name in self.sizes("rows-*.fault")), "")

    def clear_leftovers(self) -> None:
        """Deletes what a killed or refused run left that is of no use to the next."""
        self._delete([self.join(name) for name in (*self.sizes(f"{_TEMPORARY}*"), *self.sizes("rows-*.fault"))])

    def clear(self) -> None:
        """Deletes all records, the index first: what a kill leaves of them is not taken for whole."""
        self._delete([self.join(INDEX), *(self.join(name) for name in self.sizes("rows-*"))])

    def _delete(self, paths: list[str]) -> None:
        if paths:
            FileSystems.delete(paths)
