"""Text room: raw text to words and sentences, the way CoNLL-2003 was split. Rules only, no language model.

Every word is a slice of the text as given, so offsets need no translation. Kept whole: hyphenated words,
numbers with their inner punctuation, abbreviations and initials (`U.S.`, `Mr.`, `J.`), `AT&T`, web and mail
addresses, dashes and dots in a row, emoji sequences. Split off: other punctuation, currency signs, `'s`,
`n't`, `'ve` and their like. Blanks, control and invisible characters (NUL, zero-width space, direction
marks) lie between words. Han characters are words of their own, as in BERT's own splitting.

Time is linear: repetitions are possessive and look-ahead is bounded, so no text makes a pattern start over.
"""

from collections.abc import Iterable, Iterator
from sys import maxsize
from typing import NamedTuple

import regex

from app.text.lines import BLANK, LINE_ENDS, find_line_boundaries


class Word(NamedTuple):
    """A word as the slice `text[start:end]`."""

    start: int
    end: int


TITLES = frozenset(
    "Mr Mrs Ms Mx Dr Prof St Ste Gen Lt Col Maj Capt Sgt Cpl Cmdr Adm Gov Sen Rep Rev Hon Pres Msgr Mt Ft Fr "
    "Mme vs".split()
)
# At the end of names, which people write in any case.
_COMPANY_ENDINGS = "Jr Sr Inc Corp Co Ltd Bros".split()
ENDINGS = frozenset(
    "Cos Cie etc Calif Fla Conn Ariz Okla Tenn Colo Minn Mass Nev Ore Wis Tex Ga Va".split()
    + [spelled for ending in _COMPANY_ENDINGS for spelled in (ending, ending.upper(), ending.lower())]
)
BEFORE_NUMBERS = frozenset(
    "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec No Nos no nos Fig fig Vol vol pp".split()
)
# Words that begin a sentence after an abbreviation more often than they go on a name.
STARTERS = frozenset(
    "a an the this that these those he she it they we i you his her its their our my in on at for from but "
    "and or if as when while after before there what who how why where since although however both all no "
    "not with by to".split()
)

# The soft hyphen and the joiners may stand inside a word.
_LETTER = r"[[\p{L}\p{N}]--\p{Han}][\p{M}\u00ad\u200c\u200d]*+"
_RUN = rf"(?:{_LETTER})++"
_NAME = r"[A-Za-z0-9\-]{1,63}+"
DOMAINS = ("com", "org", "net", "edu", "gov", "info", "io", "co.uk", "de", "fr", "eu")
CONTRACTED = ("s", "m", "d", "re", "ve", "ll")
SUFFIXES = (*CONTRACTED, "em", "n", "til", "tis", "twas")


def any_case(words: Iterable[str]) -> str:
    """A pattern of words in upper or lower case; `(?i)` would let other letters (long s) pass for ASCII ones."""
    return "|".join("".join(f"[{c}{c.upper()}]" if c.isalpha() else rf"\{c}" for c in word) for word in words)


_DOMAINS = f"(?:{any_case(DOMAINS)})"
# A symbol with what is drawn into it: marks, skin tones, joined pictures. Simpler than Unicode's grapheme clusters.
PICTURE = r"[\p{Extended_Pictographic}--[\p{L}\p{N}]]"
_DRAWN = r"\p{M}\u200c\U0001F3FB-\U0001F3FF\U000E0020-\U000E007F"
_TAIL = r"[^\s\p{Cc}\p{Cf}\p{Cs}<>\"“”]*+"

_TOKEN = regex.compile(
    rf"""(?V1)
      (?P<blank>{BLANK}++)
    | (?P<plain>[\p{{L}}--\p{{Han}}]++(?=[\s,;!?)"]))  # most words, without trying the rest
    | (?P<address>(?:(?:https?|ftp)://|www\.)(?=\w){_TAIL})
    | (?P<mail>[\p{{L}}\p{{N}}._%+\-]{{1,64}}+@(?:{_NAME}\.){{1,8}}{_NAME})
    | (?P<site>{_NAME}(?:\.{_NAME}){{0,3}}?\.{_DOMAINS}\b(?![\-.]\w)(?:/{_TAIL})?+)
    | (?P<acronym>(?:\p{{L}}\p{{M}}*+\.){{2,}}+(?:-{_RUN})*+)
    | (?P<initial>\p{{Lu}}\p{{M}}*+\.(?=\ ?\p{{L}}|\)))
    | (?P<title>(?:{"|".join(sorted(TITLES | {title.upper() for title in TITLES}))})\.(?!\p{{N}}))
    | (?P<ending>(?:{"|".join(sorted(ENDINGS))})\.)
    | (?P<before_number>(?:{"|".join(sorted(BEFORE_NUMBERS))})\.(?=\ ?\p{{Nd}}))
    | (?P<list_number>(?<![^{LINE_ENDS}])\p{{Nd}}{{1,3}}\.(?=\ ))
    | (?P<suffix>['’](?:{any_case(SUFFIXES)})(?![\p{{L}}\p{{N}}]))
    | [@\#](?=\p{{L}}){_RUN}(?:_{_RUN})*+
    | (?P<dollar>(?:US|[ACSRTZ]|NZ|HK)?\$)
    | (?P<compound>(?:\+|(?<![^\s(])\.(?=\p{{Nd}}))?(?=[\p{{L}}\p{{N}}]){_RUN}(?:
          [\-‐‑_'’]{_RUN} | (?<=\p{{Lu}})&(?=\p{{Lu}}){_RUN} | (?<=\p{{Nd}})[.,:/](?=\p{{Nd}}){_RUN}
      )*+)
    | (?P<mark>[.\-=*_~])(?P=mark)++
    | \p{{Regional_Indicator}}{{1,2}}+  # a flag
    | (?:{PICTURE}(?:[{_DRAWN}]*+\u200d{PICTURE})*+|.)[{_DRAWN}\u200d]*+
    """,
    regex.VERBOSE | regex.DOTALL,
)
_CONTRACTION = regex.compile(f"(?:[nN]['’][tT]|['’](?:{any_case(CONTRACTED)}))$")

_TERMINALS = frozenset(". ! ? … ‼ ⁇ ؟ ۔ । ॥".split())
_WIDE_TERMINALS = frozenset("。 ！ ？ ｡".split())  # no blank follows these
_CLOSERS = frozenset(") ] } ” ’ » ' 」 』 ）".split())
_OPENERS = frozenset("( [ { “ ‘ « \" ' ¿ ¡ 「 『 （ - -- —".split())
_ADDRESS_TAIL = frozenset(".,;:!?)]}'’»…")  # at the end of a web address they belong to the sentence
# The sets above by the name under which `characters.py` makes tables of them.
SINGLE_CHARACTERS = {
    "terminal": _TERMINALS,
    "wide": _WIDE_TERMINALS,
    "closer": _CLOSERS,
    "opener": frozenset(opener for opener in _OPENERS if len(opener) == 1),
    "tail": _ADDRESS_TAIL,
}


def split_words(text: str) -> list[Word]:
    """Splits raw text into words, left to right; no `text[start:end]` is empty or holds a blank."""
    return list(_iterate_words(text))


def _iterate_words(text: str) -> Iterator[Word]:
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        if match.lastgroup == "blank":
            continue
        if match.lastgroup == "compound":
            yield from _split_contractions(text, start, end)
        elif match.lastgroup in ("address", "site"):
            yield from _trim_address(text, start, end)
        else:
            yield Word(start, end)


def _split_contractions(text: str, start: int, end: int) -> Iterator[Word]:
    """Splits `couldn't've` into `could`, `n't` and `'ve`; at most two endings are split off."""
    tails: list[Word] = []
    while len(tails) < 2 and (found := _CONTRACTION.search(text, max(start, end - 4), end)):
        if found.start() == start:
            break
        tails.append(Word(found.start(), end))
        end = found.start()
    yield Word(start, end)
    yield from reversed(tails)


def _trim_address(text: str, start: int, end: int) -> Iterator[Word]:
    """Punctuation at the end of a web address belongs to the sentence."""
    inner = end
    while text[inner - 1] in _ADDRESS_TAIL:
        inner -= 1
    yield Word(start, inner)
    for i in range(inner, end):
        yield Word(i, i + 1)


def split_sentences(text: str) -> list[list[Word]]:
    """Splits raw text into sentences of words; joined, they are `split_words(text)`.

    A sentence ends after `.`, `!`, `?` and their like with the quotes and brackets that close behind them,
    where a blank follows and the next word is not lower-case; and at the end of a line unless that only
    breaks prose (see `lines.py`). After an abbreviation it ends only if a word follows that usually begins
    sentences, after a title (`Mr.`) never.
    """
    words = split_words(text)
    lines = iter(find_line_boundaries(text))
    line = next(lines, maxsize)  # the next one that begins a sentence
    sentences: list[list[Word]] = []
    current: list[Word] = []
    quotes = 0  # straight quotes in the current sentence: an odd one is still open
    end = ""  # what the current sentence ends with so far: "", "weak" (abbreviation), "full" or "wide"
    for i, word in enumerate(words):
        at_line = word.start >= line
        if at_line:
            line = next(lines, maxsize)
        if current and (at_line or _begins_sentence(text, words, i, end=end, quoted=quotes % 2 == 1)):
            sentences.append(current)
            current, quotes, end = [], 0, ""
        current.append(word)
        piece = text[word.start : word.end]
        quotes += piece == '"'
        end = _ending(piece) or (end if piece in _CLOSERS or piece == '"' else "")
    if current:
        sentences.append(current)
    return sentences


def _ending(piece: str) -> str:
    """How strongly a word ends a sentence."""
    if piece in _TERMINALS or piece.startswith(".."):
        return "full"
    if piece in _WIDE_TERMINALS:
        return "wide"
    if len(piece) < 2 or piece[-1] != "." or piece[0].isdigit() or piece[:-1] in TITLES:
        return ""
    return "weak"


def _begins_sentence(text: str, words: list[Word], i: int, *, end: str, quoted: bool) -> bool:
    """Whether word i begins a sentence after the words before it in the same line or paragraph, and how they end."""
    if not end:
        return False
    gap = words[i - 1].end < words[i].start
    piece = text[words[i].start : words[i].end]
    if piece in _CLOSERS - _OPENERS or _ending(piece) in ("full", "wide"):
        return False
    if piece in ("'", '"') and (not gap or quoted):
        return False
    if not gap and end != "wide":
        return False
    ahead = (text[start:stop] for start, stop in words[i : i + 3])
    first = next((word for word in ahead if word not in _OPENERS), piece)
    if end == "weak":
        return first[0].isupper() and first.lower() in STARTERS
    return not first[0].islower()
