"""Tasks room: answers shown to a person at a terminal: entities in their text, labels above it."""

from collections.abc import Iterator, Sequence
from typing import IO

from rich.console import Console
from rich.text import Text

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red")
UNSHOWN = {number: 0x2400 + number for number in range(0x20) if chr(number) not in "\n\t"}  # pictures of them
# Other characters that steer a terminal, turn the direction of what follows, or cannot be written.
_OTHERS = ((0x7F, 0xA0), (0x202A, 0x202F), (0x2066, 0x206A), (0xD800, 0xE000))
UNSHOWN |= {number: 0xFFFD for first, end in _OTHERS for number in range(first, end)}


class EntityDisplay:
    """Writes each text with its entities, their labels and scores; in colour where the terminal has any.

    Args:
        file: where to.
        types: the entity types there are; a legend of them comes first.
    """

    def __init__(self, file: IO[str], types: Sequence[str]) -> None:
        self._console = Console(file=file, highlight=False, soft_wrap=True, markup=False, emoji=False)
        self._styles = {kind: f"black on {COLOURS[i % len(COLOURS)]}" for i, kind in enumerate(types)}
        legend = Text("entities: ")
        for kind in types:
            legend.append(f" {kind} ", self._styles[kind]).append(" ")
        self._print(legend.append("and how sure the model is of each, of 1"))

    def show(self, row: dict) -> None:
        """Writes one answer of `predict`."""
        if heading := _heading(row):
            self._print(Text(heading, "bold"))
        shown = Text()
        for part, style in self._parts(row):
            shown.append(part, style)
        self._print(shown)

    def _parts(self, row: dict) -> Iterator[tuple[str, str]]:
        text, end = row["text"].translate(UNSHOWN), 0  # character by character, so that offsets stay
        for entity in row["entities"]:
            style = self._styles[entity["label"]]
            yield text[end : entity["start"]], ""
            yield f"[{text[entity['start'] : entity['end']]}", f"bold {style}"
            yield f" {entity['label']} {entity['score']:.2f}]", style
            end = entity["end"]
        yield text[end:], ""

    def _print(self, text: Text) -> None:
        self._console.print(text)


def _heading(row: dict) -> str:
    """The name of a text, and in a ranking its place; empty if there is neither."""
    name, unsure = row.get("file", row.get("id")), row.get("uncertainty")
    parts = [] if name is None else [str(name).translate(UNSHOWN)]
    if "rank" in row and isinstance(unsure, float):
        times = row.get("occurrences", 1)
        often = f", {times:,} times in the input" if isinstance(times, int) and times > 1 else ""
        parts.append(f"{row['rank']}. uncertainty {unsure:.3f}{often}".translate(UNSHOWN))
    return "  ".join(parts)


# Labels of texts shown to a person at a terminal.


MOST_SHOWN = 3  # labels of a text
LEAST_SHOWN = 0.05  # probability of the others


class LabelDisplay:
    """Writes each text below its label; in colour where the terminal has any.

    Args:
        file: where to.
        labels: there are.
    """

    def __init__(self, file: IO[str], labels: Sequence[str]) -> None:
        self._console = Console(file=file, highlight=False, soft_wrap=True, markup=False, emoji=False)
        self._styles = {label: f"black on {COLOURS[i % len(COLOURS)]}" for i, label in enumerate(labels)}

    def show(self, row: dict) -> None:
        """Writes one answer of `predict`."""
        chosen = row["labels"] if "labels" in row else [label for label in [row["label"]] if label is not None]
        shown = Text()
        for label in chosen:
            shown.append(f" {label} {row['scores'][label]:.2f} ", self._styles[label]).append(" ")
        if not chosen:
            shown.append(" no label ", "reverse").append(" ")
        ranked = sorted(row["scores"].items(), key=lambda item: -item[1])
        others = [f"{label} {score:.2f}" for label, score in ranked if label not in chosen and score >= LEAST_SHOWN]
        shown.append(", ".join(others[:MOST_SHOWN]), "dim")
        if heading := _heading(row):
            self._console.print(Text(heading, "bold"))
        self._console.print(shown)
        self._console.print(Text(f"  {row['text'].translate(UNSHOWN)}"))
