"""Data room: the lines of a text file, decoded and numbered, whatever its size."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from app.config import InputError

MAX_LINE_BYTES = 16 * 2**20  # a JSON line may hold a document of a million characters, escaped
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def utf16_hint(content: bytes) -> str:
    """What to add to a message about bytes that are no UTF-8 text, if they look like UTF-16; else an empty string."""
    zeros = sorted(half.count(0) / max(len(half), 1) for half in (content[:200:2], content[1:200:2]))
    looks = len(content) >= 8 and zeros[0] < 0.1 and zeros[1] > 0.5  # Latin letters: every other byte is 0
    if not (content.startswith(_UTF16_MARKS) or looks):
        return ""
    return "; it looks like UTF-16, as Excel and Windows write it: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"


def require_file(path: Path) -> None:
    """Raises InputError unless there is a file."""
    if not path.is_file():
        kind = "a folder, not a file" if path.is_dir() else "missing"
        raise InputError(f"{path} is {kind}")


def read_lines(
    path: str | Path, *, max_line_bytes: int = MAX_LINE_BYTES, at_most_bytes: int = 0
) -> Iterator[tuple[int, str]]:
    """Reads a UTF-8 file line by line, gzip-compressed if its name ends in `.gz`.

    Memory never exceeds one line of `max_line_bytes`. Lines end at LF or CRLF only; every other character,
    NUL and U+2028 included, is content. A byte order mark at the beginning of a line is dropped: files that were
    joined to one have it inside. With `at_most_bytes`, only the whole lines within the first so many bytes of text
    are read.

    Yields:
        (line number from 1, text without its line end).

    Raises:
        InputError: the file is missing, unreadable, not gzip, not UTF-8, or has an overlong line.
    """
    path = Path(path)
    require_file(path)
    number = size = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(max_line_bytes + 1):
                number += 1
                size += len(line)
                if at_most_bytes and size > at_most_bytes:
                    return
                if len(line) > max_line_bytes:
                    raise InputError(f"{path}, line {number}: longer than {max_line_bytes:,} bytes")
                line = line.removeprefix(_BYTE_ORDER_MARK)
                yield number, line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{path}, line {number}: invalid UTF-8 (byte 0x{byte:02x} at byte {error.start + 1} of the line)"
            f"{utf16_hint(error.object) if number == 1 else ''}"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read after line {number}: {error}") from error


def place_of(file: str, line: int) -> str:
    """Where something stands, as a message says it; line 0 means nothing."""
    return f"{file}, line {line}" if line else file


def shortened(value: object, characters: int = 60) -> str:
    """A value of a file as a message quotes it."""
    text = repr(value[: 2 * characters] if isinstance(value, str) else value)
    return text if len(text) <= characters else text[: characters - 3] + "..."
