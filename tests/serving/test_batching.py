"""The queue before a model: what is computed together, who waits, who is refused, who is given up."""

import asyncio
import threading

import numpy as np
import pytest

from app.serving.batching import Batcher, join_parts
from app.serving.errors import RequestError


class Upper:
    """An engine that writes texts in capitals, when it is let."""

    def __init__(self) -> None:
        self.batches, self.let, self.begun = [], threading.Event(), threading.Event()

    def answer(self, texts, *, worker=0, alone=True, deadline=0.0):
        self.batches.append((list(texts), alone))
        self.begun.set()
        assert self.let.wait(10)
        if "bad" in texts:
            raise RequestError(400, "bad")
        return Answered([text.upper() for text in texts])

    def compute_logits(self, arrays, *, worker=0):
        self.batches.append(("arrays", False))
        return {"logits": arrays["ids"] * 2}


class Answered(list):
    def rows(self, first, end):
        return self[first:end]

    def outputs(self, first, end):
        return {"text": np.array(self[first:end], object)}


def run(scenario, *, threads=1, **limits):
    """A scenario with a batcher over such an engine."""
    engine = Upper()
    batcher = Batcher(engine, threads=threads, **{"max_batch": 4, "queue_size": 3, **limits})
    try:
        return asyncio.run(asyncio.wait_for(scenario(engine, batcher), 20))
    finally:
        engine.let.set()
        batcher.close()
        batcher.join()


async def begin(engine, batcher):
    """A request that is being computed until `engine.let` is set."""
    first = asyncio.create_task(batcher.ask(texts=["first"], as_rows=True, seconds=10))
    assert await asyncio.to_thread(engine.begun.wait, 10)
    return first


def test_what_comes_while_the_worker_is_busy_is_computed_together_and_each_gets_its_own():
    async def scenario(engine, batcher):
        first = await begin(engine, batcher)
        waiting = [asyncio.create_task(batcher.ask(texts=[text, "x"], as_rows=True, seconds=10)) for text in "abc"]
        await asyncio.sleep(0.05)
        assert batcher.waiting == 3
        engine.let.set()
        assert await first == ["FIRST"]
        assert await asyncio.gather(*waiting) == [["A", "X"], ["B", "X"], ["C", "X"]]
        assert engine.batches == [(["first"], True), (["a", "x", "b", "x"], False), (["c", "x"], True)]

    run(scenario)


def test_several_workers_share_what_waits():
    async def scenario(engine, batcher):
        begun = [asyncio.create_task(batcher.ask(texts=["busy"], as_rows=True, seconds=10)) for _ in range(2)]
        while len(engine.batches) < 2:
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(batcher.ask(texts=[text], as_rows=True, seconds=10)) for text in "abcd"]
        await asyncio.sleep(0.05)
        engine.let.set()
        await asyncio.gather(*begun, *waiting)
        assert max(len(texts) for texts, _ in engine.batches) == 2  # not all four by the first that is free

    run(scenario, threads=2, queue_size=9)


def test_a_long_request_is_cut_and_put_together_again():
    async def scenario(engine, batcher):
        engine.let.set()
        rows = await batcher.ask(texts=list("abcdefghij"), as_rows=True, seconds=10)
        outputs = await batcher.ask(texts=list("abcdef"), seconds=10)
        assert rows == list("ABCDEFGHIJ") and outputs["text"].tolist() == list("ABCDEF")
        assert max(len(texts) for texts, _ in engine.batches) <= 4

    run(scenario, threads=2)


def test_more_than_may_wait_are_refused_and_what_waits_is_answered():
    async def scenario(engine, batcher):
        first = await begin(engine, batcher)
        waiting = [asyncio.create_task(batcher.ask(texts=["a"], as_rows=True, seconds=10)) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(RequestError, match="3 requests are waiting already") as refused:
            await batcher.ask(texts=["b"], seconds=10)
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
        engine.let.set()
        assert await asyncio.gather(first, *waiting) == [["FIRST"], ["A"], ["A"], ["A"]]

    run(scenario)


def test_who_waits_too_long_is_told_and_is_not_computed_any_more():
    async def scenario(engine, batcher):
        first = await begin(engine, batcher)
        with pytest.raises(RequestError, match=r"no answer in 0\.05 s") as refused:
            await batcher.ask(texts=["late"], seconds=0.05)
        assert refused.value.status == 504
        engine.let.set()
        await first
        assert await batcher.ask(texts=["next"], as_rows=True, seconds=10) == ["NEXT"]
        assert ["late"] not in [texts for texts, _ in engine.batches]
        assert batcher.waiting == 0

    run(scenario)


def test_a_failure_reaches_those_it_concerns_and_the_worker_goes_on():
    async def scenario(engine, batcher):
        engine.let.set()
        with pytest.raises(RequestError, match="bad"):
            await batcher.ask(texts=["bad"], seconds=10)
        assert await batcher.ask(texts=["good"], as_rows=True, seconds=10) == ["GOOD"]

    run(scenario)


def test_arrays_are_computed_by_themselves():
    async def scenario(engine, batcher):
        first = await begin(engine, batcher)
        asked = [
            asyncio.create_task(batcher.ask(texts=["a"], as_rows=True, seconds=10)),
            asyncio.create_task(batcher.ask(arrays={"ids": np.array([3])}, seconds=10)),
        ]
        await asyncio.sleep(0.05)
        engine.let.set()
        rows, logits = await asyncio.gather(*asked)
        await first
        assert rows == ["A"] and logits["logits"].tolist() == [6]

    run(scenario)


def test_what_was_taken_is_answered_when_the_batcher_is_closed():
    async def scenario(engine, batcher):
        first = await begin(engine, batcher)
        second = asyncio.create_task(batcher.ask(texts=["second"], as_rows=True, seconds=10))
        await asyncio.sleep(0.05)
        batcher.close()
        engine.let.set()
        assert await asyncio.gather(first, second) == [["FIRST"], ["SECOND"]]

    run(scenario)


def test_who_chose_a_version_before_it_was_retired_is_answered_by_it_at_once():
    async def scenario(engine, batcher):
        engine.let.set()
        batcher.close()
        batcher.join()
        for _ in range(2):
            assert await batcher.ask(texts=["a", "b"], as_rows=True, seconds=2) == ["A", "B"]
            await asyncio.to_thread(batcher.join)

    run(scenario, threads=2)


def test_outputs_of_parts_are_padded_to_the_widest():
    parts = [
        {"count": np.array([1]), "label": np.array([[b"a"]], object), "score": np.array([[0.5]])},
        {"count": np.array([2, 0]), "label": np.array([[b"b", b"c"], [b"", b""]], object), "score": np.ones((2, 2))},
    ]
    joined = join_parts(parts, as_rows=False)
    assert joined["label"].tolist() == [[b"a", b""], [b"b", b"c"], [b"", b""]]
    assert joined["score"].tolist() == [[0.5, 0], [1, 1], [1, 1]] and joined["count"].tolist() == [1, 2, 0]
