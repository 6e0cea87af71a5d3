"""Entities of texts over REST, with the standard library alone.

    python examples/rest_client.py "Angela Merkel visited New York."
    python examples/rest_client.py --url=http://localhost:8501 < texts.txt      # one text a line

Works with TensorFlow Serving (deploy/serving.yaml) and with `--mode=serve`.
"""

import argparse
import json
import sys
import urllib.error
import urllib.request
from typing import Any


def find_entities(texts: list[str], *, url: str, timeout_seconds: float = 60.0) -> list[list[dict[str, Any]]]:
    """The entities of each text: `{"start", "end", "label", "text", "score"}`, offsets in characters.

    Raises:
        OSError: the server does not answer, or refuses the request; the message says why.
    """
    request = urllib.request.Request(
        f"{url.rstrip('/')}/v1/models/ner:predict",
        json.dumps({"instances": texts}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
            rows = json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        raise OSError(f"{url}: {error.code} {error.read().decode('utf-8', 'replace')}") from error
    except urllib.error.URLError as error:
        raise OSError(f"no answer from {url} ({error.reason}): start a server with --mode=serve") from error
    return [
        [
            {
                "start": row["start"][i],
                "end": row["end"][i],
                "label": row["label"][i],
                "text": text[row["start"][i] : row["end"][i]],
                "score": row["score"][i],
            }
            for i in range(row["count"])
        ]
        for text, row in zip(texts, rows, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Finds the entities of texts by a server.")
    parser.add_argument("text", nargs="*", help="texts; without any, the lines of standard input")
    parser.add_argument("--url", default="http://localhost:8501")
    arguments = parser.parse_args()
    texts = arguments.text or [line.rstrip("\r\n") for line in sys.stdin]
    try:
        found = find_entities(texts, url=arguments.url) if texts else []
    except OSError as error:
        sys.exit(f"error: {error}")
    for text, entities in zip(texts, found, strict=True):
        print(json.dumps({"text": text, "entities": entities}, ensure_ascii=False))


if __name__ == "__main__":
    main()
