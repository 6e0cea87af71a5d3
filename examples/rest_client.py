"""Entities or labels of texts over REST, with the standard library alone.

    python examples/rest_client.py "Angela Merkel visited New York."
    python examples/rest_client.py --model=classify "Where is my order?"
    python examples/rest_client.py --url=http://localhost:8501 < texts.txt      # one text a line

Works with TensorFlow Serving (deploy/serving.yaml) and with `--mode=serve`.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
from typing import Any


def find_entities(
    texts: list[str], *, url: str, model: str = "ner", timeout_seconds: float = 60.0
) -> list[list[dict[str, Any]]]:
    """The entities of each text: `{"start", "end", "label", "text", "score"}`, offsets in characters.

    Raises:
        OSError: the server does not answer, or refuses the request; the message says why.
    """
    rows = ask(texts, url=url, model=model, timeout_seconds=timeout_seconds)
    return [entities_of(text, row) for text, row in zip(texts, rows, strict=True)]


def find_labels(
    texts: list[str], *, url: str, model: str = "classify", timeout_seconds: float = 60.0
) -> list[dict[str, Any]]:
    """The label of each text: `{"label", "score"}`; the label is empty where the model is not sure enough.

    Raises:
        OSError: as in `find_entities`.
    """
    rows = ask(texts, url=url, model=model, timeout_seconds=timeout_seconds)
    return [label_of(row) for row in rows]


def entities_of(text: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The entities in the row of a tagger."""
    return [
        {
            "start": row["start"][i],
            "end": row["end"][i],
            "label": row["label"][i],
            "text": text[row["start"][i] : row["end"][i]],
            "score": row["score"][i],
        }
        for i in range(row["count"])
    ]


def label_of(row: dict[str, Any]) -> dict[str, Any]:
    """The label in the row of a classifier."""
    return {"label": row["label"], "score": row["score"]}


def ask(texts: list[str], *, url: str, model: str, timeout_seconds: float) -> list[dict[str, Any]]:
    """The server's row for each text, as TensorFlow Serving answers it."""
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/models/{model}:predict",
        json.dumps({"instances": texts}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
            return list(json.load(response)["predictions"])
    except urllib.error.HTTPError as error:
        raise OSError(f"{url}: {error.code} {reason_of(error.read())}") from error
    except urllib.error.URLError as error:
        raise OSError(f"no answer from {url} ({error.reason}): start a server with --mode=serve") from error


def reason_of(body: bytes) -> str:
    """What a server says is wrong: its "error", else the body as it came."""
    said = body.decode("utf-8", "replace")
    try:
        return str(json.loads(said)["error"])
    except (ValueError, KeyError, TypeError):
        return said


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers texts by a server.")
    parser.add_argument("text", nargs="*", help="texts; without any, the lines of standard input")
    parser.add_argument("--url", default="http://localhost:8501")
    parser.add_argument("--model", default="ner", help="name of the model on the server (default: ner)")
    arguments = parser.parse_args()
    texts = arguments.text or [line.rstrip("\r\n") for line in sys.stdin]
    try:
        rows = ask(texts, url=arguments.url, model=arguments.model, timeout_seconds=60.0) if texts else []
    except OSError as error:
        sys.exit(f"error: {error}")
    for text, row in zip(texts, rows, strict=True):
        answer = {"entities": entities_of(text, row)} if "start" in row else label_of(row)
        print(json.dumps({"text": text, **answer}, ensure_ascii=False))


if __name__ == "__main__":
    main()
