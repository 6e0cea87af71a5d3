"""Settings of what a student learns from its teachers."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.config.options import option


@dataclass(frozen=True)
class HiddenStatesConfig:
    """The loss between hidden states of the student and of the first teacher."""

    weight: float = option(0.0, "weight of the mean squared difference between hidden states; 0 = off", at_least=0)
    student_layers: tuple[int, ...] = option(
        (), "student layers whose output is compared, counted from 0; empty = all", at_least=0
    )
    teacher_layers: tuple[int, ...] = option(
        (), "teacher layers they are compared with; empty = evenly spread, the last with the last", at_least=0
    )


@dataclass(frozen=True)
class RelationConfig:
    """The loss between self-attention relations (MiniLM) of the student and of the first teacher."""

    weight: float = option(0.0, "weight of the divergence between self-attention relations; 0 = off", at_least=0)
    vectors: tuple[str, ...] = option(
        ("query", "key", "value"), "vectors whose relations are compared", choices=("query", "key", "value")
    )
    heads: int = option(12, "heads that the vectors of both networks are split into", at_least=1)
    student_layer: int = option(-1, "student layer, counted from 0; -1 = the last", at_least=-1)
    teacher_layer: int = option(-1, "teacher layer, counted from 0; -1 = the last", at_least=-1)


@dataclass(frozen=True)
class DistillConfig:
    """A small network learns from large ones. The losses are weighted and added; a weight of 0 leaves one out."""

    teachers: tuple[str, ...] = option(
        ("runs/finetune",), "runs to learn from, their answers averaged; or one backbone, see backbone.source",
        path="path",
        trains=("distill",),
    )
    student: str = option(
        "teacher_layers",
        "what the student begins as, unless init_from names a run: layers of the first teacher, or backbone.source",
        choices=("teacher_layers", "backbone"), trains=("distill",),
    )
    student_layers: tuple[int, ...] = option(
        (0, 2, 5), "student=teacher_layers: the teacher's layers it is made of, counted from 0", at_least=0,
        trains=("distill",),
    )
    temperature: float = option(2.0, "divides logits and transition scores in the soft losses", above=0, at_most=100)
    labels_weight: float = option(0.5, "weight of the loss of the corpus's own labels", at_least=0)
    soft_weight: float = option(
        1.0, "weight of the divergence between the label probabilities at each word (logits alone)", at_least=0
    )
    chain_weight: float = option(
        0.0, "weight of the divergence between the probabilities of whole tag sequences (CRF marginals)", at_least=0
    )
    hidden: HiddenStatesConfig = field(default=HiddenStatesConfig(), metadata={"trains": ("distill",)})
    relation: RelationConfig = field(default=RelationConfig(), metadata={"trains": ("distill",)})
    keep_answers: bool = option(
        True, "ask the teachers once for each sequence and keep their logits, in memory and in files (data.cache_dir), "
        "if the sequences are in memory too and neither hidden states nor relations are compared",
    )
    unlabelled_limit_words: int = option(
        0, "words read from data.unlabelled_path at most; 0 = all", at_least=0
    )
