"""Hugging Face's preparation of text for masked-language modelling, for `pretraining_data.py`; needs an environment of
its own (benchmarks/README.md).

The way its `run_mlm.py` does it: `datasets.map` tokenizes the lines with their special pieces, a second one joins them
and cuts rows of one length. Prints the seconds from the text on disk to the rows on disk, imports left out.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("text", type=Path, nargs="+")
    options = parser.parse_args()
    # One process on one core: threads of the tokenizer would only get in each other's way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HF_HOME"] = cache
        from datasets import load_dataset, logging
        from transformers import BertTokenizerFast

        logging.disable_progress_bar()
        tokenizer = BertTokenizerFast(vocab=options.vocabulary, vocab_file=options.vocabulary, do_lower_case=True)
        tokenizer("warm up")

        def tokenize(examples: dict) -> dict:
            return tokenizer(examples["text"], return_special_tokens_mask=True)

        def group(examples: dict) -> dict:
            joined = {name: list(chain(*values)) for name, values in examples.items()}
            total = len(joined["input_ids"]) // options.length * options.length
            starts = range(0, total, options.length)
            return {name: [row[i : i + options.length] for i in starts] for name, row in joined.items()}

        began, used = time.perf_counter(), time.process_time()
        files = {"train": [str(path) for path in options.text]}
        lines = load_dataset("text", data_files=files, cache_dir=cache)["train"]
        tokenized = lines.map(tokenize, batched=True, remove_columns=["text"])
        rows = tokenized.map(group, batched=True)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
        result = {"seconds": seconds, "cpu_seconds": cpu_seconds, "rows": len(rows)}
    print(json.dumps(result))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
