"""Mutated requests against a running server: each must be answered, with JSON, and never with 5xx.

    python -m app.main --mode=serve --run_dir=runs/finetune --set serve.access_log=false
    python benchmarks/fuzz_server.py --count 10000

Bodies of all kinds are changed at random places, and sent to all paths that take one; now and then with a wrong header.
Prints how often each status came; ends with 1 at the first answer that is none, which the same --seed gives again.
"""

import argparse
import collections
import gzip
import http.client
import json
import random
import sys
from urllib.parse import urlsplit

ROW = {"token_ids": [101, 2000, 102], "shape_ids": [0, 3, 0], "padding_mask": [1, 1, 1]}
BODIES = [
    {"instances": ["Angela Merkel visited New York ."]},
    {"instances": [{"text": "a"}, {"text": {"b64": "QWRh"}}]},
    {"inputs": {"text": ["Ada", "Bob"]}},
    {"signature_name": "tokenized", "instances": [ROW, ROW]},
    {"signature_name": "tokenized", "inputs": {name: [value] for name, value in ROW.items()}},
    {"texts": ["Ada met Bob .", "x"], "model": "ner", "version": "stable"},
]
MATERIAL = [
    b"null", b"true", b"-1", b"1e999", b"NaN", b"[[", b"]", b"{", b"}", b'"', b"\\ud800", b"\\u0000", b"\xff\xfe",
    b"99999999999", b'{"b64": "AA=="}', b'"tokenized"', b',"inputs":{}', "é🎉".encode(), b",", b":", b"0.5", b"",
    b"[" * 3000, b"9" * 5000, b"a" * 3000, b'"\\u202e"', b"\r\n", b"\0",
]  # fmt: skip
HEADERS = [{"Content-Encoding": "gzip"}, {"Content-Encoding": "zstd"}, {"Content-Type": "text/plain"}, {"Expect": "x"}]
ALLOWED = {200, 400, 404, 405, 413, 415}


def mutate(chance: random.Random, body: bytes) -> bytes:
    """Some bytes changed, taken away, doubled, or put in from elsewhere."""
    found = bytearray(body)
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        at, kind = chance.randrange(len(found) + 1), chance.randrange(5)
        if kind == 0 and found:
            found[at % len(found)] = chance.randrange(256)
        elif kind == 1:
            del found[at : at + chance.randint(1, 8)]
        elif kind == 2:
            found[at:at] = found[at : at + 12]
        elif kind == 3:
            found[at:at] = chance.choice(MATERIAL)
        else:
            found[at : at + 3] = chance.choice(MATERIAL)
    return bytes(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sends mutated requests.")
    parser.add_argument("--url", default="http://localhost:8501")
    parser.add_argument("--model", default="ner", help="its name in the paths")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    place, chance = urlsplit(options.url), random.Random(options.seed)
    paths = [f"/v1/models/{options.model}:predict", "/entities", "/classify", "/answers"]
    seen: collections.Counter[int] = collections.Counter()
    connection = http.client.HTTPConnection(place.hostname or "localhost", place.port, timeout=60)
    for number in range(options.count):
        path, body = chance.choice(paths), mutate(chance, json.dumps(chance.choice(BODIES)).encode())
        headers = chance.choice(HEADERS) if chance.random() < 0.1 else {}
        if chance.random() < 0.05:
            body, headers = gzip.compress(body), {"Content-Encoding": "gzip"}
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            status, answer = response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            sys.exit(f"request {number} to {path}: {error!r}; body {body[:300]!r}")
        seen[status] += 1
        if status not in ALLOWED or (status != 200 and list(answer) != ["error"]):
            sys.exit(f"request {number} to {path}: {status} {answer}; body {body[:300]!r}")
    print(json.dumps({str(status): count for status, count in sorted(seen.items())}))


if __name__ == "__main__":
    main()
