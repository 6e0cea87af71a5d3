"""A corpus whose tags follow from the words alone, and taggers small enough to train in a second.

Importable by tests and by the processes they start (`tests/conftest.py` and PYTHONPATH see to it).
"""

import csv
from pathlib import Path

import numpy as np

from app.config import BackboneConfig, ModelConfig, TrainingConfig
from app.data.sentence import Sentence

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
PEOPLE, SURNAMES, PLACES = ("Ada", "Bob", "Cleo", "Dan"), ("Smith", "Jones"), ("Rome", "Oslo", "Lima")
AMBIGUOUS = "Jordan"  # a person or a place: no model gets everything right
OTHERS = ("met", "saw", "went", "to", "in", "and", "the", "house", "was", "old")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = (*SPECIAL, *PEOPLE, *SURNAMES, *PLACES, "City", AMBIGUOUS, *OTHERS, ".", "##s")
LENGTH = 32
# What the tests count on is written out, so that another default does not change what they say.
TRAINING = TrainingConfig(
    epochs=3, batch_size=4, learning_rate=1e-2, weight_decay=0.01, clip_norm=1.0, beta_2=0.999, warmup_fraction=0.1,
    average_weights_decay=0.0, average_weights_every_steps=1, word_mask_fraction=0.0,
    r_drop_weight=0.0, checkpoint_every_steps=1000, tensorboard=False,
)  # fmt: skip


def write_vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
    return path


def make_sentences(count: int, *, seed: int = 0, sentences_per_document: int = 3) -> list[Sentence]:
    rng = np.random.default_rng(seed)
    sentences = []
    for number in range(count):
        pairs = []
        for _ in range(rng.integers(2, 4)):
            pairs += [(str(word), "O") for word in rng.choice(OTHERS, rng.integers(1, 4))]
            if rng.random() < 0.5:
                pairs.append((str(rng.choice([*PEOPLE, AMBIGUOUS])), "B-PER"))
                pairs += [(str(rng.choice(SURNAMES)), "I-PER")] if rng.random() < 0.5 else []
            else:
                pairs.append((str(rng.choice([*PLACES, AMBIGUOUS])), "B-LOC"))
                pairs += [("City", "I-LOC")] if rng.random() < 0.3 else []
        pairs.append((".", "O"))
        words, tags = zip(*pairs, strict=True)
        sentences.append(Sentence(words, tags, number // sentences_per_document))
    return sentences


def write_corpus(path: Path, sentences: list[Sentence]) -> Path:
    from app.tasks.tagging.conll import write_conll

    write_conll(path, sentences)
    return path


def backbone_config(vocabulary: Path, **settings) -> BackboneConfig:
    small = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32, "max_positions": 64}
    dropouts = {"dropout": 0.0, "attention_dropout": 0.0}
    return BackboneConfig(source="random", vocabulary_path=str(vocabulary), **(small | dropouts | settings))


def make_mpnet(vocabulary: Path, **settings):
    """A backbone of random weights that is an MPNet; see `backbone_config`."""
    from dataclasses import replace

    from app.encoder.backbone import build_backbone
    from app.encoder.bert import as_mpnet, make_bert_backbone, read_settings

    bert = build_backbone(backbone_config(vocabulary, **settings))
    return replace(bert, model=make_bert_backbone(as_mpnet(read_settings(bert.model))))


def make_tagger(
    vocabulary: Path,
    *,
    model: ModelConfig | None = None,
    seed: int = 0,
    freeze: bool = False,
    mpnet: bool = False,
    **settings,
):
    """Weights depend on the seed alone, and are large enough that no comparison is about nothing."""
    from app.encoder.backbone import build_backbone
    from app.tasks.network import build_model
    from app.tasks.tagging.task import TAGGING
    from app.text.shapes import NUM_SHAPES

    model = model or ModelConfig(head="softmax", head_dropout=0.0)
    backbone = make_mpnet(vocabulary, **settings) if mpnet else build_backbone(backbone_config(vocabulary, **settings))
    settings = {"task": TAGGING, "labels": LABELS, "shape_count": NUM_SHAPES, "freeze_embeddings": freeze}
    tagger = build_model(backbone, model, **settings)
    rng = np.random.default_rng(seed)
    for variable in tagger.whole.variables:
        centre = 1.0 if variable.name.endswith("gamma:0") else 0.0
        variable.assign((centre + 0.1 * rng.normal(size=variable.shape)).astype(np.float32))
    return tagger


def make_encoder(tagger, *, max_length: int = LENGTH, overlap: int = 8, by_document: bool = True):
    from app.tasks.tagging.encoding import SentenceEncoder
    from app.text.shapes import word_shapes
    from app.text.word_pieces import WordPieces

    pieces = WordPieces(tagger.backbone.vocabulary, lowercase=tagger.backbone.lowercase)
    return SentenceEncoder(pieces, tagger.labels, word_shapes, max_length, overlap, by_document)


def make_tuner(tagger, config: TrainingConfig, *, seed: int = 0):
    from app.training.fine_tuner import FineTuner, SpecialIds

    special = SpecialIds(start=2, end=3, mask=4)
    return FineTuner(tagger.network, tagger.head.compute_loss, special=special, config=config, seed=seed)


def make_batch(tagger, *, rows: int = 4, seed: int = 0):
    """Real packed rows as one batch of tensors."""
    import tensorflow as tf

    from app.data.packing import FEATURES

    found = list(make_encoder(tagger).training_rows(make_sentences(6 * rows, seed=seed)))[:rows]
    assert len(found) == rows
    return {name: tf.constant(np.stack([getattr(row, name) for row in found])) for name in (*FEATURES, "labels")}


def weights_of(tagger) -> list[np.ndarray]:
    return [variable.numpy() for variable in tagger.network.variables]


TEXT_LABELS = ("neither", "person", "place")
NAMES = {"person": PEOPLE[:3], "place": PLACES}


def make_texts(count: int, *, seed: int, kind: str = "single", outside: bool = False) -> list[dict[str, str]]:
    """Rows of a corpus whose labels follow from the names in the text.

    Args:
        count: rows.
        seed: of the words.
        kind: `single`; `several`, where a text may have both labels or none; `pairs`, labelled by the second text.
        outside: whether every tenth text is out of scope.
    """
    rng, rows = np.random.default_rng(seed), []

    def text(names: list[str]) -> str:
        words = [str(word) for word in rng.choice(OTHERS, rng.integers(2, 9))]
        for name in names:
            words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(NAMES[name])))
        return " ".join([*words, "."])

    for number in range(count):
        found = [name for name in NAMES if rng.random() < 0.5]
        if kind != "several":
            found = [label for label in [str(rng.choice(TEXT_LABELS))] if label in NAMES]
        label = "|".join(found) or ("" if kind == "several" else "neither")
        if kind == "pairs":
            rows.append({"text_a": text([]), "text_b": text(found), "label": label})
        elif outside and number % 10 == 9:
            rows.append({"text": "the the the house", "label": "out_of_scope"})
        else:
            rows.append({"text": text(found), "label": label})
    return rows


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_texts(folder: Path, *, kind: str = "single") -> None:
    for seed, (split, count) in enumerate({"train": 150, "valid": 40, "test": 60}.items(), start=21):
        rows = make_texts(count, seed=seed, kind=kind, outside=kind == "single" and split != "train")
        write_table(folder / f"{split}.csv", rows)


def text_settings(folder: Path, vocabulary: Path, *more: str) -> list[str]:
    """Settings of a small run of text classification, as values of `--set`."""
    splits = {f"data.{split}_path={folder / f'{split}.csv'}" for split in ("train", "valid", "test")}
    own = [flag.removeprefix("--set=") for flag in run_settings(folder, vocabulary)]
    usual = [each for each in own if not each.startswith(("model.head", "data.train_", "data.valid_", "data.test_"))]
    # Wide enough for the blocks of int4.
    return ["task=classification", *usual, *sorted(splits), "backbone.hidden_dim=32", *more]


def make_classifier(
    vocabulary: Path,
    *,
    labels: tuple = TEXT_LABELS,
    facts: dict | None = None,
    pooling: str = "mean",
    seed: int = 0,
    exit_layers: tuple[int, ...] = (),
    **settings,
):
    """As `make_tagger`: a classifier whose weights depend on the seed alone."""
    from app.encoder.backbone import build_backbone
    from app.tasks.classification.task import CLASSIFICATION
    from app.tasks.network import build_model
    from app.text.shapes import NUM_SHAPES

    model = build_model(
        build_backbone(backbone_config(vocabulary, **settings)),
        ModelConfig(pooling=pooling, head_dropout=0.0, exit_layers=exit_layers),
        task=CLASSIFICATION,
        labels=labels,
        shape_count=NUM_SHAPES,
        facts=facts,
    )
    rng = np.random.default_rng(seed)
    for variable in model.whole.variables:
        centre = 1.0 if variable.name.endswith("gamma:0") else 0.0
        variable.assign((centre + 0.3 * rng.normal(size=variable.shape)).astype(np.float32))
    return model


def run_settings(folder: Path, vocabulary: Path) -> list[str]:
    """`--set` flags of a small run of every part of the program; its corpora lie in the folder."""
    settings = {
        **{f"data.{split}_path": folder / f"{split}.conll" for split in ("train", "valid", "test")},
        "data.max_length": LENGTH, "data.overlap_tokens": 8,
        "backbone.source": "random", "backbone.vocabulary_path": vocabulary, "backbone.num_layers": 1,
        "backbone.num_heads": 2, "backbone.hidden_dim": 16, "backbone.intermediate_dim": 32,
        "backbone.max_positions": 64, "model.head": "crf", "training.epochs": 4, "training.batch_size": 4,
        "training.learning_rate": 0.02, "training.average_weights_decay": 0.5, "training.checkpoint_every_steps": 4,
        "evaluation.batch_size": 8, "training.precision": "float32", "seed": 7,
    }  # fmt: skip
    return [f"--set={key}={value}" for key, value in settings.items()]


def write_corpora(folder: Path) -> None:
    for seed, (split, count) in enumerate({"train": 150, "valid": 40, "test": 60}.items(), start=11):
        write_corpus(folder / f"{split}.conll", make_sentences(count, seed=seed))
