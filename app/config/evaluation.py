"""Settings of --mode=evaluate and --mode=predict."""

from __future__ import annotations

from dataclasses import dataclass

from app.config.options import option

# What --mode=predict can sort texts by, see app/evaluation/ranking.py.
RANKS = ("uncertainty", "least_confidence", "margin", "entropy", "diversity", "disagreement")


@dataclass(frozen=True)
class EvaluationConfig:
    """Scoring of a trained model."""

    split: str = option("test", "corpus to score", choices=("train", "valid", "test"))
    # In pretraining, the masks of the held-out text are drawn batch by batch, and its score chooses the weights.
    batch_size: int = option(32, "sequences in a step", at_least=1, trains=("pretrain",))
    tflite_file: str = option("int8", "predictor=tflite: which file of export/tflite, without its ending")


@dataclass(frozen=True)
class PredictConfig:
    """Entities or labels of plain text."""

    input_format: str = option(
        "auto",
        "what a document is: a line, the text of a JSON line, a whole file; auto takes .jsonl and .ndjson for JSON "
        "lines, .csv, .tsv and .tab for tables whose rows a classifier answers, and else a single input for lines, "
        "folders and several files for whole files",
        choices=("auto", "lines", "jsonl", "files"),
    )
    format: str = option(
        "auto",
        "how entities are shown: as JSON lines, or in the text; auto shows them in the text on a terminal",
        choices=("auto", "jsonl", "text"),
    )
    split_sentences: bool = option(True, "split the text into sentences first")
    batch_size: int = option(32, "sequences in a step", at_least=1)
    min_score: float = option(
        0.0,
        "leave out entities the model is less sure of; task=classification: the label of a text is null below it",
        at_least=0,
        at_most=1,
    )
    target_precision: float = option(
        0.0,
        "task=classification: min_score is the one with which so many of the labels given were right in validation; "
        "0 = none",
        at_least=0,
        at_most=1,
    )
    max_f1_loss: float = option(
        0.2,
        "model.exit_layers: how much worse than the whole network, in points of 100 of the headline score, the answers "
        "in validation may have been where what is sure leaves early; the threshold that saves most within it is used; "
        "0 = every text goes through all layers. A TFLite file keeps the threshold that it was exported with",
        at_least=0,
        at_most=100,
    )
    drop_non_names: bool = option(
        True,
        "leave out entities that are only an e-mail or web address, a handle, a file path, a number, a date, a hash or "
        "symbols; types that the training corpus has on such words keep them",
    )
    rank: str = option(
        "",
        "sort texts by what a person should look at next, those the model is least sure of first. uncertainty: by the "
        "measure for the task, which is least_confidence for entities and margin for labels; or the one named: "
        "least_confidence, margin, entropy. diversity: the least sure text of each kind of text; disagreement: where "
        "predict.other_run answers differently. A text that is there several times comes once, as the first of them, "
        "with their number in occurrences. Empty = as they come",
        choices=("", *RANKS),
    )
    top: int = option(0, "rank: how many different texts are given out; 0 = all", at_least=0)
    other_run: str = option("", "rank=disagreement: another run, of the same task and labels", path="path")
    rank_limit: int = option(
        1_000_000,
        "rank: the most texts that are read; ranking needs the end of the input, so more are an error",
        at_least=1,
    )
