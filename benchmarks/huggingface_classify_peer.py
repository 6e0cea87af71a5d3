"""Hugging Face's Trainer on text classification, for `compare.py`; needs its own environment (benchmarks/README.md).

Sequence classification the way its `run_classification.py` does it: one text a row, rows padded to the longest of the
batch.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import torch
from datasets import Dataset
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    BertTokenizerFast,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)


def read_texts(path: Path, column: str) -> list[tuple[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["text"], row[column]) for row in csv.DictReader(file)]


def encode(texts: list[tuple[str, str]], tokenizer: BertTokenizerFast, ids: dict[str, int]) -> Dataset:
    rows = [
        {**tokenizer(text, truncation=True, max_length=256), "label": ids[label]} for text, label in texts
    ]
    return Dataset.from_list(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and test.csv")
    parser.add_argument("--label_column", default="label")
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--group_by_length", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(2)
    train = read_texts(options.data / "train.csv", options.label_column)
    labels = sorted({label for _, label in train})
    ids = {label: number for number, label in enumerate(labels)}
    vocabulary = f"{options.model}/vocab.txt"
    tokenizer = BertTokenizerFast(vocab=vocabulary, vocab_file=vocabulary, do_lower_case=True)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(labels))
    arguments = TrainingArguments(
        "/tmp/huggingface_classify_peer",
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=100,
        weight_decay=0.01,
        seed=options.seed,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=options.bf16,
        **({"train_sampling_strategy": "group_by_length"} if options.group_by_length else {}),
    )
    rows = encode(train, tokenizer, ids)
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer))
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    texts = min(trainer.state.global_step * options.batch_size, len(train) * options.epochs)
    result = {"texts_per_s": texts / seconds, "seconds": seconds}
    if options.max_steps < 0:
        test = read_texts(options.data / "test.csv", options.label_column)
        trainer.args.train_sampling_strategy = "random"  # grouped, answers would come back in another order
        predicted = trainer.predict(encode(test, tokenizer, ids)).predictions.argmax(-1)
        gold = [ids[label] for _, label in test]
        result |= {"accuracy": accuracy_score(gold, predicted), "macro_f1": f1_score(gold, predicted, average="macro")}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
