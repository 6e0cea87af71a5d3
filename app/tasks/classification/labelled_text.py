"""Tasks room: one labelled text of a corpus, and what is allowed in it whatever the file it comes from."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from app.config import InputError
from app.data.sentence import surrogate_fault
from app.data.text_lines import place_of, shortened

MAX_LABEL_CHARACTERS = 200
_MOST_LISTED = 12  # names of labels or columns in a message
_NEAR = 0.6  # how alike a name must be to one that is known, of 1, for it to be suggested
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How corpora of labelled texts are written.

    Attributes:
        format: "auto" (by file ending), "csv", "tsv", "jsonl" or "folder".
        text_column: column, key or feature of the text; empty = there is none, the texts are pairs.
        label_column: that of the label, or labels.
        pair_columns: those of the two texts of a pair; empty = the texts are no pairs.
        multi_label: whether a text may have any number of labels.
        label_separator: what parts several labels in one field.
        out_of_scope_label: marks texts of validation and test corpora that belong to no class; empty = none does.
        tfds_dir: folder of prepared TensorFlow Datasets; empty = the library's own.
    """

    format: str = "auto"
    text_column: str = "text"
    label_column: str = "label"
    pair_columns: tuple[str, ...] = ("text_a", "text_b")
    multi_label: bool = False
    label_separator: str = "|"
    out_of_scope_label: str = "out_of_scope"
    tfds_dir: str = ""


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One text of a corpus, or a pair of them, with its labels.

    Attributes:
        texts: one text, or the two of a pair, as they stand in the file.
        labels: one label; with `multi_label` any number, sorted; () where there is none.
        number: counts from 0 in corpus order.
        line: where it begins in its file, from 1; 0 where that means nothing.
        out_of_scope: it is known to belong to no class, and has no labels for that.
        file: what it was read from.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    number: int
    line: int
    out_of_scope: bool = False
    file: str = ""

    @property
    def place(self) -> str:
        """Where a user finds it."""
        return place_of(self.file, self.line)


class RawText(NamedTuple):
    """A text as a reader finds it; `label` is what the file holds there: a text, number, list or None."""

    texts: tuple[object, ...]
    label: object
    file: str
    line: int


class Columns(NamedTuple):
    """Names of the columns that hold the text, or the two of a pair, and the label (empty = none is read)."""

    texts: tuple[str, ...]
    label: str


@lru_cache(maxsize=1024)  # the lines of a JSON file have the same keys
def find_columns(names: tuple[str, ...], text_format: TextFormat, *, labelled: bool, kind: str) -> Columns:
    """Which columns of a corpus are read.

    Args:
        names: of the columns that are there.
        text_format: names of those that are looked for.
        labelled: whether there must be labels; if not, none is read.
        kind: what they are called in this kind of file: "column", "key", "feature".

    Raises:
        InputError: one is missing or there twice, or it is not clear which texts are meant.
    """
    single, pair = text_format.text_column, text_format.pair_columns
    has_single = bool(single) and single in names
    has_pair = bool(pair) and all(name in names for name in pair)
    if has_single and has_pair:
        raise InputError(
            f"there are the {kind}s {single!r} and {_quoted(pair)}: empty data.text_column if the pair is meant, or "
            "data.pair_columns if the single text is"
        )
    if not has_single and not has_pair:
        missing = _missing_text(names, text_format, kind)
        if labelled and (fault := _label_fault(names, text_format, kind)):
            missing += f"; and {fault}"
        raise InputError(missing)
    texts = pair if has_pair else (single,)
    label = _label_column(names, text_format, kind, texts) if labelled else ""
    for name in (*texts, label):
        if names.count(name) > 1 and name:
            raise InputError(f"the {kind} {name!r} is there {names.count(name)} times: it must be there once")
    return Columns(texts, label)


def _label_fault(names: Sequence[str], text_format: TextFormat, kind: str) -> str:
    """What is said of a label that is missing as the text is; an empty string if it is there."""
    try:
        _label_column(names, text_format, kind, ())
    except InputError:
        near = _nearest(text_format.label_column, names)
        meant = f": did you mean data.label_column={near}?" if near else ""
        return f"no {kind} {text_format.label_column!r} (data.label_column){meant}"
    return ""


def _label_column(names: Sequence[str], text_format: TextFormat, kind: str, texts: Sequence[str]) -> str:
    wanted = text_format.label_column
    plural = f"{wanted}s"
    if wanted in names:
        return wanted
    if text_format.multi_label and plural in names:
        return plural
    several = f", or classification.multi_label=true, which also reads {plural!r}" if plural in names else ""
    near = _suggestion(wanted, [name for name in names if name not in texts], "data.label_column")
    raise InputError(f"no {kind} {wanted!r} (data.label_column), the {kind}s are {_quoted(names)}{near}{several}")


def _missing_text(names: Sequence[str], text_format: TextFormat, kind: str) -> str:
    single, pair = text_format.text_column, text_format.pair_columns
    half = [name for name in pair if name in names]
    others = [name for name in names if name != text_format.label_column]
    if half or not single:
        missing = next(name for name in pair if name not in names) if pair else ""
        wanted = f"no {kind} {missing!r} (data.pair_columns)" if pair else "data.text_column is empty"
        return f"{wanted}, the {kind}s are {_quoted(names)}{_nearest_name(missing, others)}"
    or_pair = f", nor {_quoted(pair)} (data.pair_columns)" if pair else ""
    near = _suggestion(single, others, "data.text_column")
    return f"no {kind} {single!r} (data.text_column){or_pair}, the {kind}s are {_quoted(names)}{near}"


def _suggestion(wanted: str, names: Sequence[str], setting: str) -> str:
    """The name that may be meant, as the setting that reads it; else an empty string."""
    found = _nearest(wanted, names) or (names[0] if len(names) == 1 else "")
    return f": did you mean {setting}={found}?" if found else ""


def _nearest_name(wanted: str, names: Sequence[str]) -> str:
    found = _nearest(wanted, names)
    return f": did you mean {found!r}?" if found else ""


def _nearest(wanted: str, names: Iterable[str]) -> str:
    """The name most like one that is not there, or an empty string; case does not count."""
    by_case = {name.casefold(): name for name in names}
    found = difflib.get_close_matches(wanted.casefold(), by_case, 1, _NEAR)
    return by_case[found[0]] if found else ""


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(shortened(name) for name in names[:_MOST_LISTED]) or "none"
    return shown + (f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else "")


def check_raw_texts(
    raws: Iterable[RawText],
    text_format: TextFormat,
    *,
    split: str,
    labels: Sequence[str] | None,
    labelled: bool,
) -> Iterator[LabelledText]:
    """Texts as they are allowed to be, numbered.

    Args:
        raws: as a reader finds them.
        text_format: multi_label, label_separator, out_of_scope_label.
        split: "train", "valid" or "test"; no text of "train" may be out of scope.
        labels: the only labels allowed, or None.
        labelled: whether labels are read at all.

    Raises:
        InputError: at the first fault, naming the place.
    """
    known = None if labels is None else frozenset(labels)
    size = 0
    for number, raw in enumerate(raws):
        try:
            texts = _texts_of(raw, size)
            found = _labels_of(raw.label, text_format) if labelled else ()
            outside = bool(text_format.out_of_scope_label) and text_format.out_of_scope_label in found
            if outside:
                _check_out_of_scope(found, split)
            elif known is not None and not known.issuperset(found):
                raise InputError(_unknown(next(label for label in found if label not in known), labels or ()))
        except InputError as error:
            raise InputError(f"{place_of(raw.file, raw.line)}: {error}") from error
        size = len(texts)
        yield LabelledText(texts, () if outside else found, number, raw.line, outside, raw.file)


def _texts_of(raw: RawText, size: int) -> tuple[str, ...]:
    texts = []
    for text in raw.texts:
        if not isinstance(text, str):
            raise InputError(f"the text must be a text, received {shortened(text)}")
        if not text.strip():
            raise InputError("the text is empty" if len(raw.texts) == 1 else "a text of the pair is empty")
        if fault := surrogate_fault(text) or _nul_fault(text):
            raise InputError(f"the text {fault}")
        texts.append(text)
    if size and len(texts) != size:
        kinds = ("a single text", "a pair of texts")
        raise InputError(f"{kinds[len(texts) - 1]}, the ones before are {kinds[size - 1]} each")
    return tuple(texts)


def _labels_of(value: object, text_format: TextFormat) -> tuple[str, ...]:
    """The labels that a field holds, sorted and each once."""
    separator = text_format.label_separator
    if not text_format.multi_label:
        if isinstance(value, list | dict):
            raise InputError(
                f"the label must be a text, received {shortened(value)}; a text has several labels with "
                "classification.multi_label=true"
            )
        return (_label_of(value),)
    if isinstance(value, list):
        found = {_label_of(each) for each in value}
        for label in found:
            if separator and separator in label:
                raise InputError(f"the label {shortened(label)} holds {separator!r} (classification.label_separator)")
        return tuple(sorted(found))
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    parts = value.split(separator) if isinstance(value, str) and separator else [value]
    return tuple(sorted({_label_of(each) for each in parts}))


def _label_of(value: object) -> str:
    if isinstance(value, dict | list):
        raise InputError(f"a label must be a text, received {shortened(value)}")
    label = value.strip() if isinstance(value, str) else "" if value is None else json.dumps(value)
    if not label:
        raise InputError("the label is empty")
    if len(label) > MAX_LABEL_CHARACTERS:
        raise InputError(
            f"a label of {len(label):,} characters ({shortened(label)}), allowed are {MAX_LABEL_CHARACTERS}: "
            "data.label_column says where the labels are"
        )
    if fault := surrogate_fault(label) or _control_fault(label):
        raise InputError(f"the label {shortened(label)} {fault}")
    return label


def _nul_fault(text: str) -> str:
    return f"holds a NUL character (character {text.index(chr(0)) + 1})" if "\0" in text else ""


def _control_fault(label: str) -> str:
    """Labels are written a line each beside a model."""
    return "holds a line break or another control character" if _CONTROL.search(label) else ""


def _check_out_of_scope(labels: Sequence[str], split: str) -> None:
    if split == "train":
        raise InputError(
            "the label is that of texts out of scope (classification.out_of_scope_label), which only validation and "
            "test corpora may have: leave such texts out, or empty that setting to learn it as a class"
        )
    if len(labels) > 1:
        raise InputError(f"a text out of scope has no other label, received {_quoted(labels)}")


def _unknown(label: str, labels: Sequence[str]) -> str:
    found = _nearest(label, labels)
    near = f", did you mean {found!r}?" if found else ";"
    return f"unknown label {shortened(label)}{near} the labels are {_quoted(labels)}"
