"""Tasks room: texts to rows in which the `[CLS]` that opens each text, or each window of a long one, is labelled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.data.packing import IGNORED
from app.tasks.classification.labelled_text import LabelledText
from app.tasks.whole_text_rows import WholeTextEncoder


@dataclass(frozen=True)
class TextEncoder(WholeTextEncoder):
    """Texts with their labels to rows.

    Attributes:
        label_ids: numbers of the labels of training texts, by label or, with several to a text, by their sorted tuple.
    """

    label_ids: Mapping[tuple[str, ...], int]

    def texts_in(self, example: LabelledText) -> Sequence[str]:
        return example.texts

    def label_of(self, example: LabelledText) -> int:
        return IGNORED if example.out_of_scope else self.label_ids.get(example.labels, IGNORED)
