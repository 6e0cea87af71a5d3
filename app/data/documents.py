"""Data room: a document that is to be answered: its text, or pair of texts, and what stands beside it.

A pair is one document, with a tab between its texts. No document may be longer than 16 MiB.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.config import DataConfig, InputError
from app.data.sentence import surrogate_fault
from app.data.text_lines import shortened

MAX_DOCUMENT_BYTES = 2**24
BYTES_AT_A_TIME = 2**16
GIVEN = "given_"  # before the name of a key of the input that the answer has too
_QUOTED = 80  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Document:
    """A text, and what stands beside it in the answer: the keys of its JSON line or row, the file it comes from."""

    text: str
    fields: dict[str, Any]

    def beside(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to the document with all that stands beside it.

        A key that the answer has too is kept as `given_KEY`, such as `given_label`; only a text that is the same is
        there once.
        """
        kept: dict[str, Any] = {}
        for name, value in self.fields.items():
            if name in row and (name != "text" or value != row[name]):
                while name in row or name in self.fields:
                    name = GIVEN + name
            kept[name] = value
        return {**kept, **row}


@dataclass(frozen=True)
class TextKeys:
    """Where the text of a document is, in JSON lines and in tables.

    Attributes:
        single: keys of the text; the first that is there counts.
        pair: keys of the two texts of a pair.
        pairs: whether a document is a pair: in place of the two keys, a text with a tab in it.
        tables: whether CSV and TSV files are read as tables; otherwise they are refused.
    """

    single: tuple[str, ...] = ("text",)
    pair: tuple[str, ...] = ()
    pairs: bool = False
    tables: bool = True

    def find(self, names: Collection[str], kind: str) -> tuple[str, ...]:
        """Those of the names that hold the text, or the two of a pair.

        Raises:
            InputError: there are none.
        """
        if self.pairs and self.pair and all(name in names for name in self.pair):
            return self.pair
        for name in self.single:
            if name in names:
                return (name,)
        wanted = " or ".join(map(_quoted, self.single))
        if self.pairs and self.pair:
            wanted = f"{' and '.join(map(_quoted, self.pair))}, nor {wanted} with a tab between the texts of a pair"
        keys = ", ".join(repr(name[:40]) for name in list(names)[:8]) or "none"
        raise InputError(f"there is no {kind} {wanted}; the {kind}s are {keys}")


USUAL_KEYS = TextKeys()


def text_keys(data: DataConfig, *, pairs: bool, tables: bool) -> TextKeys:
    """The keys that a model answers: those it was trained on, and `text`."""
    single = tuple(dict.fromkeys(filter(None, (data.text_column, "text"))))
    return TextKeys(single, tuple(data.pair_columns) if pairs else (), pairs, tables)


def join_pair(first: str, second: str) -> str:
    """A pair as one text; a tab inside the first one becomes a blank, which parts words as well."""
    return f"{first.replace(chr(9), ' ')}\t{second}"


def pair_fault(text: str) -> str:
    """What is wrong with a text that is to be a pair; an empty string if nothing is. A blank one is no fault."""
    first, tab, second = text.partition("\t")
    if not text.strip() and not tab:
        return ""
    if not tab:
        received = shortened(text, _QUOTED)
        return f"must be two texts with a tab between them, as the model reads pairs, received {received}"
    if not first.strip() or not second.strip():
        which = "second" if first.strip() else "first"
        return f"must be two texts with a tab between them, and the {which} one is empty: {shortened(text, _QUOTED)}"
    return ""


def check_texts(texts: str | Iterable[str | Sequence[str]], *, pairs: bool = False) -> list[str]:
    """Documents that a program has in memory; one text is a list of one.

    Args:
        texts: where they are pairs, each is two texts, or one with a tab between them.
        pairs: whether they must be pairs.

    Raises:
        InputError: naming the number of the text: it is no text, or no pair, too long, or has half of a surrogate pair
            in it.
    """
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise InputError(f"texts must be a list of texts, received {shortened(texts, _QUOTED)}")
    found: list[Any] = [texts] if isinstance(texts, str) else [_joined(each) if pairs else each for each in texts]
    for number, text in enumerate(found):
        if not isinstance(text, str):
            wanted = "two texts, or one with a tab between them" if pairs else "a text"
            raise InputError(f"texts[{number}] must be {wanted}, received {shortened(text, _QUOTED)}")
        if pairs and (fault := pair_fault(text)):
            raise InputError(f"texts[{number}] {fault}")
        if fault := surrogate_fault(text):
            raise InputError(f"texts[{number}] {fault}")
        if 4 * len(text) > MAX_DOCUMENT_BYTES:
            size = len(text.encode("utf-8"))
            check_size(f"texts[{number}] ({size:,} bytes)", size)
    return found


def _joined(value: Any) -> Any:
    """Two texts as a pair; whatever else it is stays."""
    if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(text, str) for text in value):
        return join_pair(*value)
    return value


def divide_texts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in their order, in lists of about 64 KB: memory need not hold what all of them become."""
    first = size = 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= BYTES_AT_A_TIME or number == len(texts) - 1:
            yield texts[first : number + 1]
            first, size = number + 1, 0


def check_size(what: str, size: int, *, whole: bool = False) -> None:
    """Fails if a document has too many bytes; `whole`: a file is one."""
    if size > MAX_DOCUMENT_BYTES:
        hint = ", or read its lines with predict.input_format=lines" if whole else ""
        raise InputError(f"{what} is longer than a document may be ({MAX_DOCUMENT_BYTES:,} bytes): divide it{hint}")


def _quoted(name: str) -> str:
    return f'"{name}"'
