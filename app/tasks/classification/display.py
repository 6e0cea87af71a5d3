"""Tasks room: labels of texts shown to a person at a terminal."""

from collections.abc import Sequence
from typing import IO

from rich.console import Console
from rich.text import Text

from app.tasks.tagging.display import COLOURS, UNSHOWN

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
        name = row.get("file", row.get("id"))
        if name is not None:
            self._console.print(Text(str(name).translate(UNSHOWN), "bold"))
        self._console.print(shown)
        self._console.print(Text(f"  {row['text'].translate(UNSHOWN)}"))
