"""Text room: which line ends of a text end a sentence, and which only break hard-wrapped prose.

A blank line always ends a sentence. A single line end does too, unless the line is full: the first word of the next
line would not have fitted into the width of the paragraph, which is its longest line. Addresses, lists, poems and
tables have a longest line as well, so full lines count as prose only if enough of their words are lower-case and, where
they are narrow, if they go on in lower case. Linear in time; `graph_sentences.py` does the same inside a TensorFlow
graph.
"""

from collections.abc import Iterator
from typing import NamedTuple

import regex

BLANK = r"[\s\p{Cc}\p{Cf}\p{Cs}]"
LINE_ENDS = "\n\v\f\r\u0085\u2028\u2029"  # \r\n is one
PARAGRAPH_ENDS = "\f\u2029"
CAPITAL, SMALL = r"[\p{Lu}\p{Lt}]", r"[\p{L}--[\p{Lu}\p{Lt}]]"  # scripts without case are small
# Width of hard-wrapped prose: narrower paragraphs are lists, and in wider ones each line is a paragraph of its own.
NARROWEST, WIDEST = 20, 132
WIDE = 55  # columns; narrower lines are prose only if a third of them goes on with a small letter
PROSE = (3, 10)  # part of the words in prose that begin with a small letter, at the least
UNBROKEN = 40  # ASCII characters without a blank (a web address): no measure of the width
MARKS = "-*+#=~_|–—·"  # a first word of nothing but these is a bullet, a heading or a rule
BULLETS = "•‣◦▪●○■□►▶➤✓✔✗✘☐☑"
HYPHENS = "-‐"
COLUMNS = ("\t", "|", "   ")  # what parts the columns of tables
MOST_DIGITS = 3  # of a number that counts the points of a list

_LINE_END = regex.compile(f"[{LINE_ENDS}]")
_INDENT = rf"(?:[{BLANK}--[{LINE_ENDS}]]|>)*+"  # marks of quoted mail belong to it
_LINE = regex.compile(
    rf"(?V1){_INDENT}(?P<run>[^{BLANK}]*+)(?P<content>[^{LINE_ENDS}]*+)(?P<stop>\r\n|[{LINE_ENDS}]|\Z)"
)
_TRAILING = regex.compile(rf"(?V1)(?r){BLANK}*")
_CAPITAL_WORD = regex.compile(rf"(?V1)(?<![^{BLANK}>]){CAPITAL}")
_SMALL_WORD = regex.compile(rf"(?V1)[{BLANK}>]{SMALL}")  # twice as fast as looking behind each small letter
_MARKS_ONLY = regex.compile(rf"[\{MARKS}]+")
_OPENING = regex.compile(
    rf"(?V1)[\{MARKS}]+|[{BULLETS}].*|\p{{Nd}}{{1,{MOST_DIGITS}}}[.)]|[(\[]\p{{Nd}}{{1,{MOST_DIGITS}}}[)\]]"
    rf"|\(?\p{{L}}\)|{CAPITAL}.*:",
    regex.DOTALL,
)
_LAST_OF_OPENING = ".)]:"
_UNBROKEN = regex.compile(f"[!-~]{{{UNBROKEN}}}")
_BLANK, _SMALL, _LETTER = (regex.compile(f"(?V1){pattern}") for pattern in (BLANK, SMALL, r"\p{L}"))


class _Line(NamedTuple):
    """A line that holds more than blanks and `>`.

    Attributes:
        start: of the line.
        first: of its content.
        end: of its content.
        run: end of what stands before the first blank in its content.
        quoted: number of `>` before the content.
        opens: whether it begins a point of a list, a heading, a mail header or the like.
        is_rule: whether it is a rule, such as a row of dashes.
        follows: whether it may belong to the paragraph of the line before: nothing but one line end parts them.
    """

    start: int
    first: int
    end: int
    run: int
    quoted: int
    opens: bool
    is_rule: bool
    follows: bool


def find_line_boundaries(text: str) -> list[int]:
    """Where lines start that begin a sentence, in order; the first line with content may be among them."""
    if not _LINE_END.search(text):
        return []
    boundaries: list[int] = []
    for paragraph in _paragraphs(text):
        boundaries.append(paragraph[0].start)
        if len(paragraph) > 1:
            boundaries.extend(_inner_boundaries(text, paragraph))
    return boundaries


def _paragraphs(text: str) -> Iterator[list[_Line]]:
    paragraph: list[_Line] = []
    for line in _lines(text):
        if paragraph:
            last = paragraph[-1]
            if not line.follows or line.quoted != last.quoted or line.is_rule or last.is_rule:
                yield paragraph
                paragraph = []
        paragraph.append(line)
    if paragraph:
        yield paragraph


def _lines(text: str) -> Iterator[_Line]:
    follows = False
    for match in _LINE.finditer(text):
        start = match.start()
        first, run = match.span("run")
        stop = match.start("stop")
        if first == run:
            follows = False
            continue
        end = stop if run == stop or not _BLANK.match(text, stop - 1) else _TRAILING.match(text, run, stop).start()
        # Words of letters alone, nearly all there are, open nothing.
        special = text[run - 1] in _LAST_OF_OPENING or not text[first].isalpha()
        opens = special and bool(_OPENING.fullmatch(text, first, run))
        rule = opens and run == end and bool(_MARKS_ONLY.fullmatch(text, first, run))
        quoted = text.count(">", start, first) if start < first else 0
        yield _Line(start, first, end, run, quoted, opens, rule, follows)
        follows = text[stop : stop + 1] not in PARAGRAPH_ENDS


def _inner_boundaries(text: str, lines: list[_Line]) -> Iterator[int]:
    """Where lines of a paragraph start that begin a sentence, without the first."""
    by_length = sorted(lines, key=lambda line: line.start - line.end)
    widest = next((line for line in by_length if not _UNBROKEN.search(text, line.first, line.end)), None)
    width = widest.end - widest.start if widest else 0
    if not NARROWEST <= width <= WIDEST:
        yield from (line.start for line in lines[1:])
        return
    columns = any(text.find(mark, lines[0].start, lines[-1].end) >= 0 for mark in COLUMNS)
    block = [lines[0]]
    for line in lines[1:]:
        last = block[-1]
        if _is_full(text, last, line, width=width) and not (
            columns and any(text.find(mark, x.first, x.end) >= 0 for mark in COLUMNS for x in (last, line))
        ):
            block.append(line)
            continue
        yield from _boundaries_of_block(text, block, width=width)
        yield line.start
        block = [line]
    yield from _boundaries_of_block(text, block, width=width)


def _is_full(text: str, line: _Line, after: _Line, *, width: int) -> bool:
    """Whether a line may have been broken because the next word did not fit."""
    if after.opens or line.end - line.start + 1 + after.run - after.first > width:
        return not after.opens
    broken = text[line.end - 1] in HYPHENS and line.end - line.first > 1 and _LETTER.match(text, line.end - 2)
    return bool(broken and _SMALL.match(text, after.first))


def _boundaries_of_block(text: str, block: list[_Line], *, width: int) -> Iterator[int]:
    """Nothing if lines that are full, and the last, are prose, else where each but the first starts."""
    if len(block) > 1 and not _is_prose(text, block, width=width):
        yield from (line.start for line in block[1:])


def _is_prose(text: str, block: list[_Line], *, width: int) -> bool:
    first, end = block[0].first, block[-1].end
    small = len(_SMALL_WORD.findall(text, max(first - 1, 0), end)) + bool(not first and _SMALL.match(text))
    words = small + len(_CAPITAL_WORD.findall(text, first, end))
    part, whole = PROSE
    if not small or whole * small < part * words:
        return False
    return width >= WIDE or 3 * sum(bool(_SMALL.match(text, line.first)) for line in block[1:]) >= len(block) - 1

# Characters. Signs are cut off at the edges; units belong to a sum or a measure.
UNITS = r"[\p{Sc}%‰‱′″§°№+±]"
SIGNS = rf"[[\p{{P}}\p{{S}}\p{{M}}\p{{Cf}}]--{UNITS}]"
PICTURES = r"[[\p{Extended_Pictographic}\p{Regional_Indicator}\U0001F3FB-\U0001F3FF]--[\p{L}\p{N}\p{P}©®™#*]]"
NUMERIC = rf"[[\p{{N}}.,:/'’\-–‐‑]||{UNITS}]"  # a word of them that is no sign has a digit or a unit


