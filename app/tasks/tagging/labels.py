"""Tasks room: tagging schemes (IOB1, IOB2, IOBES), label lists and spans.

Inside the program every tag is IOB2. The schemes differ in how an entity of type X is written:

    scheme   one word   two words   directly after another entity of the same type
    iob1     I-X        I-X I-X     B-X ...
    iob2     B-X        B-X I-X     B-X I-X
    iobes    S-X        B-X E-X     B-X E-X
"""

import itertools
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

from app.config import InputError

OUTSIDE = "O"
PREFIXES = {"iob1": "BI", "iob2": "BI", "iobes": "BIES"}
MAX_TYPE_CHARACTERS = 200
_SEVERAL_TAGS = re.compile(r"[^\w-]([BIES]-.|O$)")  # B-LOC|B-ORG, O|B-PER: nested entities in one column
# Blanks other than a space, line ends, control and format characters, halves of surrogate pairs.
_UNSEEN = {"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"}


def tag_fault(tag: str, scheme: str, types: Collection[str] | None = None) -> str:
    """Says what is wrong with one tag by itself, or returns an empty string.

    Args:
        tag: as read.
        scheme: a scheme, or "auto" for the prefixes of all of them.
        types: the entity types allowed; None allows all.
    """
    if tag == OUTSIDE:
        return ""
    if fault := _form_fault(tag, scheme):
        return fault
    if types is not None and tag[2:] not in types:
        alike = [kind for kind in sorted(types) if look_alike(kind) == look_alike(tag[2:])]
        hint = f"; did you mean {alike[0]!r}?" if alike else ""
        return f"unknown tag {tag!r}, the entity types are {', '.join(sorted(types))}{hint}"
    return ""


@lru_cache(maxsize=4096)  # a corpus has few tags, each many times
def _form_fault(tag: str, scheme: str) -> str:
    if _SEVERAL_TAGS.search(tag):
        return (
            f"the tag {tag!r} is several, of nested entities: a word has one tag, so keep that of the outer entity, or "
            "write the layers as columns and choose one with data.tag_column"
        )
    prefixes = PREFIXES.get(scheme, PREFIXES["iobes"])
    if len(tag) < 3 or tag[1] != "-" or tag[0] not in prefixes or " " in tag:
        allowed = ", ".join(f"{prefix}-TYPE" for prefix in prefixes)
        return f"unknown tag {tag!r}, allowed: O, {allowed}"
    fault = type_fault(tag[2:])
    return f"the tag {tag!r}: {fault}" if fault else ""


def type_fault(kind: str) -> str:
    """Says why a text cannot be an entity type, or returns an empty string."""
    if not kind or " " in kind:
        return f"a label must be one word, received {kind!r}"
    for i, character in enumerate(kind):
        before, after = kind[max(i - 1, 0) : i] or " ", kind[i + 1 : i + 2] or " "
        joins = character in "\u200c\u200d" and not (before.isascii() or after.isascii())  # as Persian words need them
        if unicodedata.category(character) in _UNSEEN and not joins:
            name = unicodedata.name(character, "control character or half of a surrogate pair").lower()
            return f"a label must not hold invisible characters, received U+{ord(character):04X} ({name}) in {kind!r}"
    if len(kind) > MAX_TYPE_CHARACTERS:
        return f"a label must have at most {MAX_TYPE_CHARACTERS} characters, received {len(kind):,}: {kind[:40]!r}..."
    return ""


def look_alike(kind: str) -> str:
    """What types have in common that differ only in case or Unicode normal form."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", kind).casefold())


def decode_tags(tags: Sequence[str], scheme: str) -> tuple[tuple[str, ...], int]:
    """Brings the tags of one sentence to IOB2 and counts the ones its scheme forbids where they stand.

    Nothing is lost: a tag that continues no entity (I-X or E-X at the start, after O, after another type)
    begins one.

    Args:
        tags: well-formed tags, see `tag_fault`.
        scheme: "iob1", "iob2" or "iobes". IOB1 has no forbidden order, so its count is always 0.

    Returns:
        The IOB2 tags, and how many tags the same entities have differently in correct writing of the scheme.
    """
    decoded: list[str] = []
    open_type = ""  # type of the entity that the next tag may continue
    for tag in tags:
        if tag == OUTSIDE:
            decoded.append(OUTSIDE)
            open_type = ""
            continue
        prefix, kind = tag[0], tag[2:]
        continues = prefix in "IE" and kind == open_type
        decoded.append(f"{'I' if continues else 'B'}-{kind}")
        open_type = "" if prefix in "ES" else kind
    if scheme == "iob1":
        return tuple(decoded), 0
    expected = from_iob2(decoded, scheme)
    return tuple(decoded), sum(tag != right for tag, right in zip(tags, expected, strict=True))


def order_fault(tags: Sequence[str], scheme: str) -> tuple[int, str]:
    """Finds the first tag of a sentence that its scheme forbids where it stands (there must be one).

    Returns:
        Its place, and a text that says what it would have to be.
    """
    expected = from_iob2(to_iob2(tags, scheme), scheme)
    i = next(i for i, tag in enumerate(tags) if tag != expected[i])
    before = f"after {tags[i - 1]}" if i else "at the beginning of a sentence"
    return i, (
        f"{tags[i]} {before} must be {expected[i]} in {scheme.upper()}; "
        "data.strict=false repairs and counts such tags"
    )


def to_iob2(tags: Sequence[str], scheme: str) -> tuple[str, ...]:
    """Brings the tags of one sentence from `scheme` to IOB2."""
    return decode_tags(tags, scheme)[0]


def from_iob2(tags: Sequence[str], scheme: str) -> tuple[str, ...]:
    """Writes legal IOB2 tags of one sentence in `scheme`."""
    if scheme == "iob2":
        return tuple(tags)
    written: list[str] = []
    for i, tag in enumerate(tags):
        kind = tag[2:]
        if tag == OUTSIDE:
            written.append(tag)
        elif scheme == "iob1":
            touches = tag[0] == "B" and i > 0 and tags[i - 1][2:] == kind
            written.append(f"{'B' if touches else 'I'}-{kind}")
        else:
            ends = i + 1 == len(tags) or tags[i + 1] != f"I-{kind}"
            prefix = ("S" if ends else "B") if tag[0] == "B" else ("E" if ends else "I")
            written.append(f"{prefix}-{kind}")
    return tuple(written)


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """Decides the scheme from the tags of all sentences of a corpus, in one streaming pass.

    The rule: any S- or E- tag makes it IOBES. Otherwise it is IOB1 if some entity begins with I- and so
    does every other that does not directly follow one of its own type; else IOB2. A file that begins
    entities in both ways is IOB2 with errors, which the reader repairs and counts (the entities are the
    same either way).
    """
    inside_starts = begin_starts = 0
    for tags in sentences:
        before = OUTSIDE
        for tag in tags:
            if tag != OUTSIDE:
                if tag[0] in "SE":
                    return "iobes"
                if tag[2:] != before[2:]:
                    inside_starts += tag[0] == "I"
                    begin_starts += tag[0] == "B"
            before = tag
    return "iob1" if inside_starts and not begin_starts else "iob2"


def labels_from(types: Iterable[str]) -> list[str]:
    """The label list of a set of entity types: `["O", "B-LOC", "I-LOC", "B-MISC", ...]`, types sorted.

    Raises:
        InputError: no type at all, the same type twice, or an empty type.
    """
    ordered = sorted(types)
    if not ordered:
        raise InputError(
            "no entity labels: the corpus must hold at least one entity, received only O tags (in a column file, "
            "data.tag_column says which column has the tags)"
        )
    for left, right in itertools.pairwise(ordered):
        if left == right:
            raise InputError(f"duplicate label: entity type {left!r} is listed twice")
    if not all(ordered):
        raise InputError("an entity type must not be empty")
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in ordered for prefix in "BI")]


def types_from(labels: Sequence[str]) -> list[str]:
    """The entity types of a label list made by `labels_from`.

    Raises:
        InputError: the list is empty, holds a label twice, or is not in the order of `labels_from`.
    """
    if not labels:
        raise InputError("the label list is empty, expected O, B-TYPE, I-TYPE, ...")
    repeated = {label for label in labels if labels.count(label) > 1}
    if repeated:
        raise InputError(f"duplicate labels in the label list: {', '.join(sorted(repeated))}")
    types = sorted({label[2:] for label in labels if label != OUTSIDE})
    if list(labels) != labels_from(types):
        raise InputError(
            f"labels must be O, then B-TYPE and I-TYPE of each type in order, received {list(labels)}"
        )
    return types


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities of a sentence.

    Args:
        tags: IOB2 tags; an I-X that continues no entity of type X begins one, as in the CoNLL script.

    Returns:
        (type, first word, word after the last) of each entity, left to right.
    """
    found: list[tuple[str, int, int]] = []
    start, kind = 0, ""
    for i, tag in enumerate([*tags, OUTSIDE]):
        if tag[0] == "I" and tag[2:] == kind:
            continue
        if kind:
            found.append((kind, start, i))
        start, kind = i, tag[2:]
    return found


def tags_from_spans(entities: Iterable[tuple[str, int, int]], length: int) -> tuple[str, ...]:
    """IOB2 tags of `length` words from entities as `spans` gives them, which must not overlap."""
    tags = [OUTSIDE] * length
    for kind, start, end in entities:
        tags[start:end] = [f"B-{kind}", *([f"I-{kind}"] * (end - start - 1))]
    return tuple(tags)


def tags_from_offsets(
    words: Sequence[tuple[int, int]], entities: Sequence[tuple[int, int, str]]
) -> tuple[str, ...]:
    """IOB2 tags of words from entities given by character offsets.

    Args:
        words: (start, end) of each word, left to right.
        entities: (start, end, type) in any order.

    Raises:
        InputError: two entities overlap, or one does not begin and end where words do.
    """
    starts = {start: i for i, (start, _) in enumerate(words)}
    ends = {end: i + 1 for i, (_, end) in enumerate(words)}
    found: list[tuple[str, int, int]] = []
    previous = (0, 0, "")
    for entity in sorted(entities):
        start, end, kind = entity
        if start < previous[1]:
            raise InputError(
                f"entities overlap: {previous[2]} at {previous[0]}-{previous[1]} and {kind} at {start}-{end}"
            )
        if start not in starts or end not in ends or ends[end] <= starts[start]:
            raise InputError(f"{kind} at {start}-{end} is misaligned: it must begin and end where words do")
        found.append((kind, starts[start], ends[end]))
        previous = entity
    return tags_from_spans(found, len(words))
