"""Tasks room: tags of words to the parts of a text that people would mark as names.

A model tags words; what stands at the edges of a name, and some whole words, are none: quotes, dashes, emoji, web and
mail addresses, handles. They are cut off here, brackets inside a name stay in pairs, and an entity that holds nothing
but numbers, dates or pieces of a file path is dropped. Types that the training corpus shows on such words (dates, sums,
mail addresses) are left alone: see `is_non_name`. Only raw text comes here, never a corpus that is scored.
`graph_names.py` does the same inside a TensorFlow graph.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import regex

from app.tasks.tagging.labels import OUTSIDE, spans
from app.text.lines import BLANK, NUMERIC, PICTURES, SIGNS

# Kinds of words.
NAME, SIGN, PICTURE, ADDRESS, NUMBER, CALENDAR = range(6)
LEAST_PART_NON_NAMES = 0.02  # of a type's training entities, for the type to be one of those that are no names

BRACKETS = ("()", "[]", "{}", "（）")
# Words; only what TensorFlow's regular expressions can do as well.
ADDRESS_PATTERN = (
    r"[@#].+|.+@.+|(?:https?|ftp)://.*|www\..*|[A-Za-z0-9.\-]+\.[A-Za-z]+/.*"  # handles, mail, web
)
NUMBER_PATTERN = (
    r"[+\-]?[0-9][0-9.,:/’'\-]*(?:st|nd|rd|th|s|h|am|pm|AM|PM)|[0-9]{1,2}[hH][0-9]{2}"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.,]+Z?|[A-Z]{0,2}\$"
    # Days that are no names by themselves; months, and Sun, can be.
    r"|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|(?:Mon|Tues?|Wed|Thu|Thurs|Fri|Sat)\.?"
)
HASH_PATTERN = r"[0-9a-fA-F]{7,}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
HASH_DIGITS = r"[^0-9]*[0-9][^0-9]*[0-9].*"  # beside the pattern: Decade and Facade are words
_MONTHS = (
    "January February March April May June July August September October November December Jan Feb Mar Apr Jun Jul "
    "Aug Sep Sept Oct Nov Dec"
).split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mon Tue Tues Wed Thu Thurs Fri Sat Sun".split()
CALENDAR_PATTERN = (
    rf"(?:{'|'.join(word for day in (*_MONTHS, *_DAYS) for word in (day, day.upper()))})\.?"
    r"|[ap]m|[AP]M|[ap]\.m\.|[AP]\.M\.|o['’]clock|UTC|GMT|of|the|at|to"
)
LONGEST_PATH = 200
# Without those that end the names of products (Node.js) or are words of their own where a blank was forgotten.
_FILE_ENDINGS = (
    "pdf|docx?|xlsx?|pptx?|odt|ods|txt|rtf|csv|tsv|jsonl?|xml|ya?ml|toml|ini|cfg|html?|css|py|ipynb|java|cpp|hpp|php|"
    "sql|exe|dll|msi|apk|zip|gz|tar|tgz|rar|7z|iso|img|png|jpe?g|gif|svg|webp|bmp|tiff?|mp3|mp4|m4a|wav|ogg|avi|mov|"
    "mkv|log|eml|msg|ics|vcf|bak|tmp"
)
# What stands between two blanks: C:\x, \\host\x, a\b, ~/x, ./x, ../x, /x/y, x.pdf; with quotes and brackets around it.
PATH_PATTERN = (
    r"""["'(\[<“‘]*(?:[A-Za-z]:[\\/].+|\\\\.+|[^\\]*[A-Za-z0-9_.\-]\\[A-Za-z0-9_.\-].*|(?:~|\.|\.\.)/.+|/[^/]+/[^/]+.*"""
    rf"""|[^@]*[A-Za-z0-9_\-)]\.(?:{_FILE_ENDINGS}|{_FILE_ENDINGS.upper()})[.,;:!?)"'\]>”’]*)"""
)

_SIGN_WORD, _PICTURE_WORD = regex.compile(rf"(?V1){SIGNS}+"), regex.compile(rf"(?V1){PICTURES}.*", regex.DOTALL)
_NUMERIC_WORD = regex.compile(rf"(?V1){NUMERIC}*")
_ADDRESS, _HASH, _HASH_DIGITS, _NUMBER, _CALENDAR, _PATH = (
    regex.compile(pattern, regex.DOTALL)
    for pattern in (ADDRESS_PATTERN, HASH_PATTERN, HASH_DIGITS, NUMBER_PATTERN, CALENDAR_PATTERN, PATH_PATTERN)
)
_BEFORE = regex.compile(rf"(?V1)(?r)[^{BLANK}]{{0,{LONGEST_PATH}}}")
_BEHIND = regex.compile(rf"(?V1)[^{BLANK}]{{0,{LONGEST_PATH}}}")
_OPENER_OF = {pair[1]: pair[0] for pair in BRACKETS}
_BRACKET_CHARACTERS = frozenset("".join(BRACKETS))


class Name(NamedTuple):
    """An entity.

    Attributes:
        label: its type.
        first, last: words [first, last) of the sentence that are its text.
        sure_first, sure_last: of these, the words [sure_first, sure_last) that the model tagged and no bracket added.
    """

    label: str
    first: int
    last: int
    sure_first: int
    sure_last: int


@lru_cache(maxsize=2**16)
def word_kind(word: str) -> int:
    """What kind of word this is: NAME, if it can be one, or a kind that is no name by itself."""
    if _PICTURE_WORD.fullmatch(word):
        return PICTURE
    if _SIGN_WORD.fullmatch(word):
        return SIGN
    if _ADDRESS.fullmatch(word):
        return ADDRESS
    if _NUMERIC_WORD.fullmatch(word) or _NUMBER.fullmatch(word):
        return NUMBER
    if _HASH.fullmatch(word) and _HASH_DIGITS.fullmatch(word):
        return NUMBER
    return CALENDAR if _CALENDAR.fullmatch(word) else NAME


def is_non_name(words: Sequence[str]) -> bool:
    """Whether an entity of these words would be dropped, or cut, unless its type is one that is no name."""
    kinds = set(map(word_kind, words))
    return NAME not in kinds and kinds - {SIGN} != {CALENDAR}


def find_names(words: Sequence[str], tags: Sequence[str], non_names: Collection[str] = ()) -> list[Name]:
    """The names of a sentence.

    Args:
        words: of the sentence.
        tags: IOB2 tags, one a word.
        non_names: types that need be no names: their entities are never cut apart or dropped, only trimmed.
    """
    if not any(tag != OUTSIDE for tag in tags):
        return []
    tags = [
        OUTSIDE if tag != OUTSIDE and word_kind(word) in (PICTURE, ADDRESS) and tag[2:] not in non_names else tag
        for word, tag in zip(words, tags, strict=True)
    ]
    partners = _bracket_pairs(words)
    tags = _without_single_brackets(words, tags, partners, non_names)
    found = (_trimmed(words, partners, label, first, last, non_names) for label, first, last in spans(tags))
    return [name for name in found if name]


def _bracket_pairs(words: Sequence[str]) -> dict[int, int]:
    """Opening brackets to the closing ones that are the next bracket after them, and the other way round."""
    partners: dict[int, int] = {}
    before = -1
    for i, word in enumerate(words):
        if word in _BRACKET_CHARACTERS:
            if before >= 0 and _OPENER_OF.get(word) == words[before]:
                partners |= {before: i, i: before}
            before = i
    return partners


def _without_single_brackets(
    words: Sequence[str], tags: list[str], partners: dict[int, int], non_names: Collection[str]
) -> list[str]:
    """Tags that leave out each bracket whose partner is neither in its entity nor beside it."""
    run = [-1] * len(tags)
    for number, (_, first, last) in enumerate(spans(tags)):
        run[first:last] = [number] * (last - first)
    kept = list(tags)
    for i, word in enumerate(words):
        if word in _BRACKET_CHARACTERS and run[i] >= 0 and tags[i][2:] not in non_names:
            opener, closer = sorted((i, partners.get(i, i)))
            if not (opener + 1 < closer and run[opener + 1] == run[closer - 1] == run[i]):
                kept[i] = OUTSIDE
    return kept


def _trimmed(
    words: Sequence[str], partners: dict[int, int], label: str, first: int, last: int, non_names: Collection[str]
) -> Name | None:
    kinds = [word_kind(word) for word in words[first:last]]
    solid = [first + i for i, kind in enumerate(kinds) if kind not in (SIGN, PICTURE)]
    if not solid:
        return Name(label, first, last, first, last) if label in non_names else None
    if label not in non_names and is_non_name(words[first:last]):
        return None
    left, right = solid[0], solid[-1]
    opens = left - 1 in partners and left < partners[left - 1] <= right
    closes = right + 1 in partners and left <= partners[right + 1] < right
    return Name(label, left - opens, right + 1 + closes, left, right + 1)


def is_in_path(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` is part of a file's name or path: what stands between the blanks around it."""
    first, last = _BEFORE.match(text, 0, start).start(), _BEHIND.match(text, end).end()
    return last - first <= LONGEST_PATH and bool(_PATH.fullmatch(text, first, last))


def find_non_name_types(counts: Mapping[str, int], non_name_counts: Mapping[str, int]) -> tuple[str, ...]:
    """The types whose training entities are often no names, sorted.

    Args:
        counts: training entities of each type.
        non_name_counts: of these, how many `is_non_name` finds.
    """
    least = {kind: LEAST_PART_NON_NAMES * count for kind, count in counts.items()}
    return tuple(kind for kind in sorted(counts) if non_name_counts.get(kind, 0) >= least[kind] > 0)
