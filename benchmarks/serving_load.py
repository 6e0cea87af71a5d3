"""Load on a server: one text a request, from so many clients in a closed loop, or at a fixed rate in an open one.

    python -m app.main --mode=serve --run_dir=runs/finetune
    python benchmarks/serving_load.py --clients 8 --seconds 20
    python benchmarks/serving_load.py --rate 400 --seconds 600 --pid PID       # watches the server's memory

In a closed loop a client asks again when it has its answer; in an open loop requests come when they are due, answered
or not, and time counts from then, as for users, who do not wait for each other. Each text carries a number, so that
an answer that went to the wrong client is noticed. Prints a JSON line: answers a second, milliseconds at several ranks,
statuses (429: refused because too many wait), wrong answers, memory in MB at the beginning, end and most.
"""

import argparse
import asyncio
import collections
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

MOST_IDLE_SECONDS = 30  # a connection unused for longer is opened anew: servers close theirs, this one after 75 s
SENTENCE = "{} Angela Merkel and Barack Obama met at the World Bank in New York on Monday , said Reuters ."


def read_texts(path: str, *, least_words: int) -> list[str]:
    """Texts of a file in CoNLL's columns, words joined by blanks: sentences, or as many in a row as have the words."""
    found: list[str] = []
    words: list[str] = []
    for line in [*Path(path).read_text(encoding="utf-8").splitlines(), ""]:
        parts = line.split()
        if parts and parts[0] != "-DOCSTART-":
            words.append(parts[0])
        elif len(words) >= max(1, least_words):
            found.append(" ".join(words))
            words = []
    if not found:
        raise SystemExit(f"{path} has no text of {max(1, least_words)} words or more")
    return found


def read_memory(pid: int) -> float:
    """Resident memory of a process, MB; 0 without one."""
    if not pid:
        return 0.0
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Client:
    """One connection that is kept."""

    def __init__(self, url: str, key: str) -> None:
        place = urlsplit(url)
        self._address, self._host = (place.hostname or "localhost", place.port or 80), place.netloc
        self._head = f"POST {place.path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        self._head += f"Authorization: Bearer {key}\r\n" if key else ""
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asked = 0.0

    async def ask(self, text: str) -> tuple[int, str]:
        """Status, and the text that the answer is about."""
        if time.perf_counter() - self._asked > MOST_IDLE_SECONDS:
            self.close()
        self._asked = time.perf_counter()
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        assert self._reader is not None
        body = json.dumps({"texts": [text]}).encode()
        self._writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].split()[0])
        content = await self._reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        status = int(head.split(" ", 2)[1])
        return status, json.loads(content)["answers"][0]["text"] if status == 200 else ""

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class Load:
    """What was asked and what came back."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.times: list[float] = []
        self.statuses: collections.Counter[str] = collections.Counter()
        self.wrong = self.number = 0
        self.texts = read_texts(options.data, least_words=options.words) if options.data else [SENTENCE]
        self.idle: list[Client] = []

    async def ask(self, client: Client, due: float) -> None:
        self.number += 1
        number = self.number
        text = self.texts[number % len(self.texts)]
        text = text.format(number) if text == SENTENCE else f"{number} {text}"
        try:
            status, about = await client.ask(text)
        except (OSError, asyncio.IncompleteReadError) as error:
            client.close()
            self.statuses[type(error).__name__] += 1
            return
        self.statuses[str(status)] += 1
        if status == 200:
            self.times.append(time.perf_counter() - due)
            self.wrong += about != text

    async def closed(self, end: float) -> None:
        client = Client(self.options.url, self.options.key)
        while (now := time.perf_counter()) < end:
            await self.ask(client, now)
        client.close()

    async def open(self, begin: float, end: float) -> None:
        waiting, sent = set(), 0
        while (due := begin + sent / self.options.rate) < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent += 1
            task = asyncio.create_task(self.ask_by_idle(due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)

    async def ask_by_idle(self, due: float) -> None:
        client = self.idle.pop() if self.idle else Client(self.options.url, self.options.key)
        await self.ask(client, due)
        self.idle.append(client)

    async def run(self) -> dict[str, object]:
        before = most = read_memory(self.options.pid)
        begin = time.perf_counter()
        end = begin + self.options.seconds
        if self.options.rate:
            tasks = [asyncio.create_task(self.open(begin, end))]
        else:
            tasks = [asyncio.create_task(self.closed(end)) for _ in range(self.options.clients)]
        while (await asyncio.wait(tasks, timeout=1))[1]:
            most = max(most, read_memory(self.options.pid))
        await asyncio.gather(*tasks)
        seconds = time.perf_counter() - begin
        self.times.sort()
        ranks = {f"p{rank}_ms": self.at(rank / 100) for rank in (50, 90, 99)}
        memory = {"before_mb": before, "most_mb": most, "after_mb": read_memory(self.options.pid)}
        return {
            "answers_per_s": round(len(self.times) / seconds, 1),
            **ranks,
            "statuses": dict(self.statuses),
            "wrong": self.wrong,
            **({name: round(value) for name, value in memory.items()} if self.options.pid else {}),
        }

    def at(self, part: float) -> float | None:
        if not self.times:
            return None
        return round(1000 * self.times[min(len(self.times) - 1, int(part * len(self.times)))], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures a server under load.")
    parser.add_argument("--url", default="http://localhost:8501/entities")
    parser.add_argument("--data", default="", help="sentences of a CoNLL file; empty = one sentence, numbered")
    parser.add_argument("--words", type=int, default=0, help="of a request at least, in sentences of --data; 0 = one")
    parser.add_argument("--clients", type=int, default=8, help="closed loop")
    parser.add_argument("--rate", type=float, default=0, help="requests a second, open loop; 0 = closed loop")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--key", default="", help="serve.api_key")
    parser.add_argument("--pid", type=int, default=0, help="process whose memory is watched")
    options = parser.parse_args()
    if options.words and not options.data:
        parser.error("--words needs --data, whose sentences are put together")
    print(json.dumps(asyncio.run(Load(options).run())))


if __name__ == "__main__":
    main()
