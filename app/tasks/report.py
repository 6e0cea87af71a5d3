"""Tasks room: what a task has to show of its scores, in parts that any page can draw. No task draws by itself."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Rows of text; the last `averages` of them are set apart.

    Attributes:
        heading: of the card it stands in.
        caption: one sentence on what is counted.
        columns: names; the first column is text, the others are numbers.
        rows: as many cells as there are columns, formatted.
        averages: number of rows at the end that sum the others up.
    """

    heading: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    averages: int = 0


@dataclass(frozen=True)
class Bars:
    """One horizontal bar for each name, of a length from 0 to the largest value (or 1 if all are below).

    Attributes:
        heading: of the card.
        caption: one sentence.
        names: of the bars, from top to bottom.
        values: their lengths.
        notes: what stands at the end of each bar.
        measure: what the lengths are, for example "F1".
        marks: name -> as many values, shown as marks on the bars.
        parts: name -> as many values, of which the bars are made; they sum up to the lengths.
        sizes: what stands after each note, for example the number of examples behind it.
        sizes_name: what `sizes` are.
    """

    heading: str
    caption: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    notes: tuple[str, ...]
    measure: str = ""
    marks: dict[str, tuple[float, ...]] = field(default_factory=dict)
    parts: dict[str, tuple[float, ...]] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()
    sizes_name: str = ""


@dataclass(frozen=True)
class Matrix:
    """Counts of gold (rows) against predicted (columns).

    Attributes:
        heading: of the card.
        caption: one sentence.
        rows: names of the rows.
        columns: names of the columns.
        counts: as many rows and columns; right is what has one name for its row and its column.
        blank: (row, column) of cells in which nothing can be counted.
    """

    heading: str
    caption: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    blank: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Lines:
    """Curves over one axis.

    Attributes:
        heading: of the card.
        caption: one sentence.
        x_label: what the horizontal axis is.
        y_label: what the vertical axis is.
        series: name -> points (x, y), from left to right.
        diagonal: draw the line y = x, where a calibrated model would lie.
    """

    heading: str
    caption: str
    x_label: str
    y_label: str
    series: dict[str, tuple[tuple[float, float], ...]]
    diagonal: bool = False


@dataclass(frozen=True)
class Segment:
    """A run of text of an example.

    Attributes:
        text: as it is shown.
        label: what it is marked as; empty for plain text.
        wrong: whether the mark is an error.
    """

    text: str
    label: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Example:
    """Something that was predicted wrongly.

    Attributes:
        where: its place in the corpus.
        kinds: of the errors in it, by which examples can be picked.
        lines: (name such as "gold", what stands there).
    """

    where: str
    kinds: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Segment, ...]], ...]


@dataclass(frozen=True)
class Report:
    """The scores of a split, ready to be shown.

    Attributes:
        size: what was scored, for example "1,234 words, 56 sentences".
        text: `report.txt`.
        tiles: the numbers that matter most, (name, value), the headline first.
        charts: pictures, in their order.
        tables: tables, in their order.
        examples: everything that is wrong.
        labels: in a fixed order, by which marks are coloured.
        kinds: of errors, in the order in which they are offered.
        unit: what an example is, in the singular, for example "sentence".
    """

    size: str
    text: str
    tiles: tuple[tuple[str, str], ...]
    charts: tuple[Bars | Matrix | Lines, ...] = ()
    tables: tuple[Table, ...] = ()
    examples: tuple[Example, ...] = ()
    labels: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    unit: str = "example"
