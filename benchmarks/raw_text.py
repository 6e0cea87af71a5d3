"""Raw text to entities with a SavedModel: all in the graph, against Python around the network.

    python benchmarks/raw_text.py runs/finetune --text data/sample/test.conll

The newest SavedModel of the run answers the same texts in two ways, in turns: `serving_default` takes the strings;
`tokenized` takes word pieces that Python cuts from them, and Python decodes its logits, as `--mode=predict` does. Both
give the same entities, which is checked first. One sentence a request, one document, then `--batch_size` documents.
Prints words/s, the ratios and JSON.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import tensorflow as tf  # noqa: E402

from app.evaluation.frontier_rounds import sample_documents  # noqa: E402
from app.evaluation.runtimes import SavedModelForward, build_predictor, load_saved_model  # noqa: E402
from app.evaluation.timing import time_in_rounds  # noqa: E402
from app.run.directory import RunDirectory  # noqa: E402
from app.tasks.bundle import load_model  # noqa: E402
from app.tasks.network import build_encoder  # noqa: E402
from app.tasks.tagging.answers import find_non_names, tag_texts  # noqa: E402
from app.tasks.tagging.corpus import open_corpus  # noqa: E402
from app.tasks.tagging.task import TAGGING  # noqa: E402
from app.text.words import split_words  # noqa: E402

Answers = list[list[tuple[str, int, int]]]


def read_documents(path: str, data: Any, *, words: int) -> list[str]:
    """Documents of a corpus as plain text, one sentence a line, of about so many words; 0 = all."""
    sentences = sample_documents(TAGGING, list(open_corpus(path, split="test", config=data).examples()), words)
    return ["\n".join(" ".join(each.words) for each in part)
            for _, part in groupby(sentences, key=lambda each: each.document)]  # fmt: skip


def ask_graph(signature: Any, texts: list[str]) -> Answers:
    """Entities by `serving_default`."""
    found = {name: value.numpy() for name, value in signature(text=tf.constant(texts)).items()}
    return [
        [
            (found["label"][row][at].decode(), int(found["start"][row][at]), int(found["end"][row][at]))
            for at in range(found["count"][row])
        ]
        for row in range(len(texts))
    ]


def ask_python(predictor: Any, non_names: tuple[str, ...], texts: list[str]) -> Answers:
    """Entities by `tokenized` with Python before and after it."""
    return [[(each["label"], each["start"], each["end"]) for each in row["entities"]]
            for row in tag_texts(texts, predictor, non_names=non_names)]  # fmt: skip


def time_all(ask: Callable[[list[str]], Answers], batches: list[list[str]]) -> float:
    began = time.perf_counter()
    for batch in batches:
        ask(batch)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory with export/saved_model")
    parser.add_argument("--text", required=True, help="a corpus; its words are joined by spaces")
    parser.add_argument("--words", type=int, default=5000, help="of the corpus; 0 = all")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    run = RunDirectory(options.run)
    data, loaded, tagger = run.read_config().data, load_saved_model(run.saved_model), load_model(run.model)
    forward = SavedModelForward.of(loaded, labels=len(tagger.labels))
    predictor = build_predictor(tagger, build_encoder(tagger, data), batch_size=32, forward=forward)
    non_names = find_non_names(tagger, run.read_config().predict)
    ways = {
        "strings in, all in the graph": partial(ask_graph, loaded.signatures["serving_default"]),
        "word pieces in, Python around": partial(ask_python, predictor, non_names),
    }
    documents = read_documents(options.text, data, words=options.words)
    graph, python = (ask(documents[:50]) for ask in ways.values())
    if graph != python:
        raise SystemExit("the two ways give other entities")
    words = sum(len(split_words(document)) for document in documents)
    print(f"{len(documents)} documents, {words:,} words; words/s, median of {options.rounds} rounds")
    result = {}
    requests = {
        "1 sentence": [[line] for document in documents for line in document.split("\n")],
        "1 document": [[document] for document in documents],
        f"{options.batch_size} documents": [
            documents[at : at + options.batch_size] for at in range(0, len(documents), options.batch_size)
        ],
    }
    for size, batches in requests.items():
        tasks = {name: partial(time_all, ask, batches) for name, ask in ways.items()}
        time_in_rounds(tasks, rounds=1)  # warms up
        speeds = {name: words / took for name, took in time_in_rounds(tasks, rounds=options.rounds).items()}
        first, second = speeds.values()
        result[size] = {**speeds, "ratio": first / second}
        print(f"{size} a request: " + ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items())
              + f"; ratio {first / second:.2f}")  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
