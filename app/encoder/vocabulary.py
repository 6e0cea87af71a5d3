"""Encoder room: a backbone's vocabulary, read, checked and recognised as cased or uncased."""

import re
from collections.abc import Sequence
from pathlib import Path

from app.config import InputError

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def read_vocabulary(path: Path, *, size: int | None = None) -> list[str]:
    """Word pieces of a `vocab.txt`, one a line, in id order.

    Args:
        path: the file, in UTF-8.
        size: rows of the embedding they belong to; None when the embedding is made from the file.

    Raises:
        InputError: the file is missing, is not UTF-8, or `check_vocabulary` refuses it.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: a backbone needs its vocabulary, one word piece per line")
    pieces = []
    # Not splitlines(): pieces may be Unicode line separators.
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            pieces.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line {number}: is not valid UTF-8 ({error.reason})") from None
    if pieces[-1] == "":
        pieces.pop()
    check_vocabulary(pieces, where=str(path), size=size)
    return pieces


def check_vocabulary(pieces: Sequence[str], *, where: str, size: int | None = None) -> None:
    """Raises InputError for an empty or repeated piece, a missing special one, or a wrong number of them."""
    seen: dict[str, int] = {}
    for number, piece in enumerate(pieces, start=1):
        if not piece:
            raise InputError(f"{where}, line {number}: a word piece must not be empty")
        if piece in seen:
            raise InputError(f"{where}, line {number}: {piece!r} was already given in line {seen[piece]}")
        seen[piece] = number
    missing = [piece for piece in SPECIAL_PIECES if piece not in seen]
    if missing:
        raise InputError(f"{where} must hold {', '.join(SPECIAL_PIECES)}; missing: {', '.join(missing)}")
    if size is not None and len(pieces) != size:
        raise InputError(
            f"{where} has {len(pieces)} word pieces, but the word embedding of this model has {size} rows; "
            "they must be equal (name unused rows [unused0], [unused1], ...)"
        )


def detect_lowercase(vocabulary: Sequence[str]) -> bool:
    """Whether a vocabulary is uncased: no piece has an upper-case letter, apart from [...] pieces."""
    return all(piece == piece.lower() or re.fullmatch(r"\[.*\]", piece) for piece in vocabulary)


def choose_lowercase(setting: str, detected: bool) -> bool:
    """`backbone.lowercase`: what the source says, unless the user insists."""
    choices = {"auto": detected, "true": True, "false": False}
    if setting not in choices:
        raise InputError(f"backbone.lowercase must be one of {', '.join(choices)}, received {setting!r}")
    return choices[setting]
