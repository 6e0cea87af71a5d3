"""Hugging Face's Trainer on the same task, for `compare.py`; needs an environment of its own (benchmarks/README.md).

Token classification the way its `run_ner.py` does it: one sentence a row, first piece labelled, rows padded to the
longest of the batch.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from datasets import Dataset
from seqeval.metrics import f1_score
from transformers import (
    AutoModelForTokenClassification,
    BertTokenizerFast,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

IGNORED = -100


def read_sentences(path: Path) -> list[tuple[list[str], list[str]]]:
    """CoNLL columns to (words, tags)."""
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    lines = [[line for line in block.splitlines() if line and not line.startswith("-DOCSTART-")] for block in blocks]
    rows = [[line.split() for line in block] for block in lines]
    return [([row[0] for row in block], [row[-1] for row in block]) for block in rows if block]


def encode(sentences: list, tokenizer: BertTokenizerFast, ids: dict[str, int]) -> Dataset:
    rows = []
    for words, tags in sentences:
        row = tokenizer(words, is_split_into_words=True, truncation=True, max_length=256)
        owners = row.word_ids()
        firsts = [owner is not None and owner != before for before, owner in zip([None, *owners], owners, strict=False)]
        row["labels"] = [ids[tags[owner]] if first else IGNORED for first, owner in zip(firsts, owners, strict=True)]
        rows.append(dict(row))
    return Dataset.from_list(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--group_by_length", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(2)
    train = read_sentences(options.data / "train.txt")
    labels = sorted({tag for _, tags in train for tag in tags})
    ids = {label: number for number, label in enumerate(labels)}
    vocabulary = f"{options.model}/vocab.txt"
    tokenizer = BertTokenizerFast(vocab=vocabulary, vocab_file=vocabulary, do_lower_case=True)
    model = AutoModelForTokenClassification.from_pretrained(options.model, num_labels=len(labels))
    arguments = TrainingArguments(
        "/tmp/huggingface_peer",
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=100,
        weight_decay=0.01,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        **({"train_sampling_strategy": "group_by_length"} if options.group_by_length else {}),
    )
    collator = DataCollatorForTokenClassification(tokenizer)
    trainer = Trainer(model=model, args=arguments, train_dataset=encode(train, tokenizer, ids), data_collator=collator)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    words = sum(len(words) for words, _ in train) * trainer.state.global_step * options.batch_size / len(train)
    result = {"words_per_s": words / seconds, "seconds": seconds}
    if options.max_steps < 0:
        test = read_sentences(options.data / "test.txt")
        found = trainer.predict(encode(test, tokenizer, ids))
        kept = found.label_ids != IGNORED
        predicted = found.predictions.argmax(-1)
        gold = [[labels[i] for i in row[keep]] for row, keep in zip(found.label_ids, kept, strict=True)]
        guess = [[labels[i] for i in row[keep]] for row, keep in zip(predicted, kept, strict=True)]
        result["entity_f1"] = f1_score(gold, guess)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
