"""Data room: which line ends of a text end a sentence, and which only break hard-wrapped prose.

A blank line always ends a sentence. A single line end does too, unless the line is full: the first word of the next
line would not have fitted into the width of the paragraph, which is its longest line. Addresses, lists, poems and
tables have a longest line as well, so full lines count as prose only if enough of their words are lower-case and, where
they are narrow, if they go on in lower case. Linear in time; `graph_lines.py` does the same inside a TensorFlow graph.
"""

from collections.abc import Iterator
from dataclasses import dataclass

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
MOST_DIGITS = 3  # of a number that counts the points of a list

_LINE_END = regex.compile(f"\r\n|[{LINE_ENDS}]")
_PREFIX = regex.compile(rf"(?V1)(?:{BLANK}|>)*+")  # indentation and marks of quoted mail
_TRAILING = regex.compile(rf"(?V1)(?r){BLANK}*")
_RUN = regex.compile(rf"(?V1)[^{BLANK}]*+")
_FIRST_LETTER = regex.compile(rf"(?V1)(?<![^{BLANK}>])(?:(?P<small>{SMALL})|{CAPITAL})")
_MARKS_ONLY = regex.compile(rf"[\{MARKS}]+")
_OPENING = regex.compile(
    rf"(?V1)[\{MARKS}]+|[{BULLETS}].*|\p{{Nd}}{{1,{MOST_DIGITS}}}[.)]|[(\[]\p{{Nd}}{{1,{MOST_DIGITS}}}[)\]]"
    rf"|\(?\p{{L}}\)|{CAPITAL}.*:",
    regex.DOTALL,
)
_COLUMNS = regex.compile(r"\t|\||   ")
_UNBROKEN = regex.compile(f"[!-~]{{{UNBROKEN}}}")
_SMALL, _LETTER = (regex.compile(f"(?V1){pattern}") for pattern in (SMALL, r"\p{L}"))


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that holds more than blanks and `>`.

    Attributes:
        start: of the line.
        first: of its content.
        end: of its content.
        run: end of what stands before the first blank in its content.
        quoted: number of `>` before the content.
        opens: whether it begins a point of a list, a heading, a mail header or the like.
        is_rule: whether it is a rule, such as a row of dashes.
        has_columns: whether it looks like a row of a table.
        follows: whether it may belong to the paragraph of the line before: nothing but one line end parts them.
    """

    start: int
    first: int
    end: int
    run: int
    quoted: int
    opens: bool
    is_rule: bool
    has_columns: bool
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
    start, follows = 0, False
    ends = [(match.start(), match.end()) for match in _LINE_END.finditer(text)]
    for stop, next_start in [*ends, (len(text), len(text))]:
        first = _PREFIX.match(text, start, stop).end() if start < stop else stop
        if first < stop:
            end = _TRAILING.match(text, first, stop).start()
            run = _RUN.match(text, first, end).end()
            rule = bool(_MARKS_ONLY.fullmatch(text, first, run))
            yield _Line(
                start,
                first,
                end,
                run,
                quoted=text.count(">", start, first),
                opens=rule or bool(_OPENING.fullmatch(text, first, run)),
                is_rule=rule and run == end,
                has_columns=bool(_COLUMNS.search(text, first, end)),
                follows=follows,
            )
        follows = first < stop and text[stop : stop + 1] not in PARAGRAPH_ENDS
        start = next_start


def _inner_boundaries(text: str, lines: list[_Line]) -> Iterator[int]:
    """Where lines of a paragraph start that begin a sentence, without the first."""
    width = max((x.end - x.start for x in lines if not _UNBROKEN.search(text, x.first, x.end)), default=0)
    block = [lines[0]]
    for line in lines[1:]:
        if NARROWEST <= width <= WIDEST and _is_full(text, block[-1], line, width=width):
            block.append(line)
            continue
        yield from _boundaries_of_block(text, block, width=width)
        yield line.start
        block = [line]
    yield from _boundaries_of_block(text, block, width=width)


def _is_full(text: str, line: _Line, after: _Line, *, width: int) -> bool:
    """Whether a line may have been broken because the next word did not fit."""
    if after.opens or line.has_columns or after.has_columns:
        return False
    if line.end - line.start + 1 + after.run - after.first > width:
        return True
    hyphen = text[line.end - 1] in HYPHENS and line.end - line.first > 1 and _LETTER.match(text, line.end - 2)
    return bool(hyphen and _SMALL.match(text, after.first))


def _boundaries_of_block(text: str, block: list[_Line], *, width: int) -> Iterator[int]:
    """Nothing if lines that are full, and the last, are prose, else where each but the first starts."""
    if len(block) > 1 and not _is_prose(text, block, width=width):
        yield from (line.start for line in block[1:])


def _is_prose(text: str, block: list[_Line], *, width: int) -> bool:
    words = small = 0
    for line in block:
        for match in _FIRST_LETTER.finditer(text, line.first, line.end):
            words += 1
            small += match.lastgroup == "small"
    part, whole = PROSE
    if not small or whole * small < part * words:
        return False
    return width >= WIDE or 3 * sum(bool(_SMALL.match(text, line.first)) for line in block[1:]) >= len(block) - 1
