"""Hugging Face's Trainer on masked-language modelling, for `compare.py`; needs an environment of its own
(benchmarks/README.md).

The way its `run_mlm.py` does it: every line tokenized with its special pieces, all of them joined and cut into rows of
one length, 15 % of the pieces hidden anew for every batch.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    AutoModelForMaskedLM,
    BertTokenizerFast,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


def make_rows(text: Path, tokenizer: BertTokenizerFast, length: int) -> Dataset:
    lines = [line for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
    pieces = [number for row in tokenizer(lines)["input_ids"] for number in row]
    starts = range(0, len(pieces) - length + 1, length)
    return Dataset.from_list([{"input_ids": pieces[i : i + length]} for i in starts])


class Clock(TrainerCallback):
    """Notes when the steps of the warm-up are over."""

    def __init__(self, warmup_steps: int) -> None:
        self.warmup_steps, self.began = warmup_steps, 0.0

    def on_step_end(self, args, state, control, **_) -> None:
        if state.global_step == self.warmup_steps:
            self.began = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup_steps", type=int, default=5, help="steps that the steady speed leaves out")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    vocabulary = f"{options.model}/vocab.txt"
    tokenizer = BertTokenizerFast(vocab=vocabulary, vocab_file=vocabulary, do_lower_case=True)
    model = AutoModelForMaskedLM.from_pretrained(options.model)
    rows = make_rows(options.text, tokenizer, options.length)
    arguments = TrainingArguments(
        "/tmp/huggingface_mlm_peer",
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=options.steps // 10,
        weight_decay=0.01,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    clock = Clock(options.warmup_steps)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[clock])
    began = time.perf_counter()
    trainer.train()
    ended = time.perf_counter()
    pieces = options.batch_size * options.length  # rows are full
    result = {
        "pieces_per_s": pieces * options.steps / (ended - began),
        "steady_pieces_per_s": pieces * (options.steps - options.warmup_steps) / (ended - clock.began),
        "seconds": ended - began,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
