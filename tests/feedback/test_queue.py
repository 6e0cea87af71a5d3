"""The review queue, on SQLite and on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.config import InputError
from app.feedback.queue import Progress, ReviewQueue, Waiting, compute_disagreement
from app.feedback.store import Correction


@pytest.fixture
def queue(store) -> ReviewQueue:
    return ReviewQueue(store.database)


def label(name: str) -> dict:
    return {"label": name}


def texts(queue: ReviewQueue, **choice) -> list[str]:
    return [each.text for each in queue.next(**choice)]


def test_the_least_sure_comes_first(queue):
    queue.add([Waiting("sure", "m", uncertainty=0.1), Waiting("unknown", "m"), Waiting("unsure", "m", uncertainty=0.9)])
    queue.add([Waiting("other", "n", uncertainty=0.5), Waiting("zero", "m", uncertainty=0)])
    assert texts(queue, model="m") == ["unsure", "sure", "zero", "unknown"]
    assert texts(queue) == ["unsure", "other", "sure", "zero", "unknown"]
    assert texts(queue, limit=2, offset=1) == ["other", "sure"]


def test_everything_said_of_a_text_comes_back(queue):
    item = Waiting("🎉\r\n", "m", 3, "disagreement", 0.25, label("a"), label("b"))
    queue.add([item])
    (found,) = queue.next()
    assert found == Waiting(**{**item.__dict__, "id": found.id, "added": found.added})
    assert found.id > 0 and found.added.endswith("Z")


def test_disagreement_and_flags_have_their_own_order(queue):
    queue.add(
        [
            Waiting("same", "m", answer=label("a"), other_answer=label("a")),
            Waiting("half", "m", answer={"labels": ["a", "b"]}, other_answer={"labels": ["a"]}),
            Waiting("all", "m", answer=label("a"), other_answer=label("b")),
            Waiting("flag", "m", reason="flagged"),
        ]
    )
    assert texts(queue, by="disagreement") == ["all", "half"]
    assert texts(queue, by="flagged") == ["flag"]
    with pytest.raises(InputError, match="uncertainty, disagreement, flagged, received 'age'"):
        queue.next(by="age")


def test_a_text_waits_once_for_each_model_with_its_newest_answer(queue):
    assert queue.add([Waiting("a", "m", 1, answer=label("x")), Waiting("b", "m"), Waiting("a", "n")]) == 3
    assert queue.add([Waiting("a", "m", 2, answer=label("y"), uncertainty=0.5)]) == 0
    assert [(each.text, each.version, each.answer) for each in queue.next(model="m")] == [
        ("a", 2, label("y")), ("b", 0, {}),
    ]  # fmt: skip
    assert queue.progress() == Progress(done=0, skipped=0, left=3)


def test_what_was_reviewed_stays_so_until_somebody_flags_it(queue):
    queue.add([Waiting("a", "m"), Waiting("b", "m"), Waiting("a", "n")])
    assert queue.mark(["a", "strange"], model="m") == 1
    assert queue.mark(["b"], model="m", state="skipped") == 1
    assert queue.mark(["b"], model="m", state="skipped") == 0
    assert queue.progress(model="m") == Progress(done=1, skipped=1, left=0)
    assert queue.add([Waiting("a", "m", uncertainty=0.9)]) == 0 and texts(queue, model="m") == []
    assert queue.add([Waiting("a", "m", reason="flagged")]) == 1
    assert queue.add([Waiting("a", "m", reason="uncertain")]) == 0
    assert texts(queue, by="flagged") == ["a"]
    with pytest.raises(InputError, match="waiting, done, skipped, received 'gone'"):
        queue.mark(["a"], model="m", state="gone")


@pytest.mark.parametrize(
    ("prediction", "uncertainty"),
    [
        ({"label": "y", "score": 0.7, "scores": {"x": 0.3, "y": 0.7}}, 0.6),
        ({"label": "y"}, None),
        ({"scores": [0.3, 0.7]}, None),
        ({"label": "y", "scores": {"x": "much", "y": 0.7}}, None),
    ],
)
def test_a_flagged_text_waits_with_how_sure_the_model_was_where_that_is_known(queue, store, prediction, uncertainty):
    queue.add([Waiting("sure", "m", uncertainty=0.1)])
    flagged = Correction("flag", "classification", {}, prediction, "m", 2, verdict="flagged")
    store.add([flagged])
    found = {each.text: each.uncertainty for each in queue.next(model="m")}
    assert found == {"sure": 0.1, "flag": None if uncertainty is None else pytest.approx(uncertainty)}
    assert texts(queue, model="m")[0] == ("sure" if uncertainty is None else "flag")


def test_corrections_settle_the_queue(queue, store):
    def said(text: str, verdict: str, name: str = "") -> Correction:
        return Correction(text, "classification", label("x"), label("y"), "m", 2, verdict=verdict, id=name)

    queue.add([Waiting(text, "m") for text in "abcd"] + [Waiting("a", "n")])
    store.add([said("a", "accepted"), said("b", "fixed"), said("c", "skipped"), said("d", "flagged", "flag")])
    store.add([said("new", "flagged")])
    assert queue.progress(model="m") == Progress(done=2, skipped=1, left=2)
    assert queue.progress(model="n").left == 1
    (first, second) = queue.next(by="flagged")
    assert (first.text, second.text, second.answer, second.version) == ("d", "new", label("y"), 2)
    store.add([said("d", "flagged"), said("d", "fixed")])
    store.add([said("d", "flagged", "flag")])  # sent again by a client that got no answer
    assert texts(queue, by="flagged") == ["new"]


def test_deleted_texts_leave_the_queue(queue, store):
    queue.add([Waiting("a", "m"), Waiting("b", "m"), Waiting("c", "m")])
    store.add([Correction("b", "classification", label("x"), author="bob")])
    assert store.delete(text="a") == 0
    assert store.delete(author="bob") == 1
    assert texts(queue) == ["c"]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (Waiting(" "), "text of text 1 of the queue must be a text that is not empty"),
        (Waiting("a\0"), "holds a NUL character"),
        (Waiting("a", uncertainty=float("nan")), "uncertainty of text 1 of the queue must be a number, received nan"),
        (Waiting("a", reason="why"), "reason of text 1 of the queue must be one of added"),
        (Waiting("a", answer=[1]), "answer of text 1 of the queue must be a JSON object"),
    ],
)
def test_what_cannot_wait_is_named(queue, item, said):
    with pytest.raises(InputError, match=said):
        queue.add([item, Waiting("good")])
    assert queue.progress().left == 0


def test_many_put_texts_in_at_once(queue):
    def put(thread: int) -> None:
        for i in range(10):
            queue.add([Waiting(f"shared {i}", "m"), Waiting(f"{thread} {i}", "m")])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(put, range(6)))
    assert queue.progress().left == 70


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (label("a"), label("a"), 0),
        (label("a"), label(None), 1),
        ({"labels": ["a", "b"]}, {"labels": ["b", "c"]}, 1 - 1 / 3),
        ({"entities": []}, {"entities": []}, 0),
        ({"entities": [{"start": 0, "end": 3, "label": "PER", "score": 0.5}]},
         {"entities": [{"start": 0, "end": 3, "label": "PER"}, {"start": 5, "end": 7, "label": "LOC"}]}, 0.5),
        ({"entities": [{"start": 0, "end": 3, "label": "PER"}]},
         {"entities": [{"start": 0, "end": 3, "label": "LOC"}]}, 1),
        ({"stars": 3}, {"stars": 4}, 1),
        (label("a"), {}, 0),
    ],
)  # fmt: skip
def test_disagreement_is_what_two_answers_do_not_share(one, other, expected):
    assert compute_disagreement(one, other) == pytest.approx(expected)
