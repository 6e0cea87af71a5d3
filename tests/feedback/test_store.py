"""The store of corrections, on SQLite and on a real PostgreSQL server."""

import json
import os
import pwd
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from app.config import InputError, RunError
from app.feedback import database
from app.feedback.correction import check_correction, correction_from
from app.feedback.database import SCHEMA, mask_url
from app.feedback.store import Correction, Store, open_store
from app.tasks.tagging.answers import read_entities

PROJECT = Path(__file__).parents[2]
ADA = Correction(
    text="Ada Lovelace lived in London.",
    task="tagging",
    answer={"entities": [{"start": 0, "end": 12, "label": "PER"}, {"start": 22, "end": 28, "label": "LOC"}]},
    prediction={"entities": [{"start": 0, "end": 3, "label": "PER", "score": 0.5}]},
    model="ner",
    version=3,
    digest="ab" * 32,
    author="ada",
    source="page",
    time="2026-01-02T03:04:05Z",
    verdict="fixed",
    id="one",
)


def classified(text: str, label: str | None = "good", **values) -> Correction:
    return Correction(text=text, task="classification", answer={"label": label}, **values)


def refusal(action, *arguments, **values) -> str:
    with pytest.raises(InputError) as raised:
        action(*arguments, **values)
    said = str(raised.value)
    assert "\n" not in said
    return said


def test_a_correction_comes_back_as_it_was_said(store):
    assert store.add([ADA]) == ["one"]
    (found,) = store.read()
    assert found == replace(ADA, time="2026-01-02T03:04:05.000000Z")


@pytest.mark.parametrize(
    "text", ["👩‍👩‍👧 e\u0301 \r\n\t x", "Ω" * 100_000, "a' OR '1'='1 %s :x ?", "\x01\x7f \u2028 x"]
)
def test_any_text_comes_back_to_the_character(store, text):
    store.add([classified(text, author="Ægir 👻")])
    (found,) = store.read(author="Ægir 👻")
    assert found.text == text


def test_a_correction_without_id_and_time_gets_both(store):
    (first,), (second,) = store.add([classified("a")]), store.add([classified("a")])
    assert first != second
    times = [each.time for each in store.read()]
    assert times == sorted(times) and all(time.endswith("Z") and len(time) == 27 for time in times)


def test_saving_an_id_twice_stores_it_once(store):
    assert store.add([ADA]) == store.add([ADA]) == ["one"]
    assert store.add([ADA, ADA, replace(ADA, id="two")]) == ["one", "one", "two"]
    assert store.count() == 2
    assert store.add([replace(ADA, time="", id="one")]) == ["one"]  # a client that tries again later


def test_an_id_is_not_taken_for_another_answer_and_nothing_is_stored_then(store):
    store.add([ADA])
    said = refusal(store.add, [classified("new"), replace(ADA, verdict="accepted")])
    assert "'one'" in said and "is stored already" in said
    assert store.count() == 1


def test_one_bad_correction_means_that_none_is_stored(store):
    said = refusal(store.add, [classified("good"), classified("  ")])
    assert said == "text of correction 2 must be a text that is not empty, received '  '"
    assert store.count() == 0 and store.add([]) == []


def test_filters_and_order(store):
    hours = {5: "accepted", 3: "fixed", 4: "flagged", 1: "skipped"}
    for hour, verdict in hours.items():
        store.add([classified(f"t{hour}", time=f"2026-01-01T0{hour}:00:00Z", verdict=verdict, model=f"m{hour % 2}")])
    store.add([replace(ADA, time="2026-01-01T06:00:00+04:00")])  # 02:00 UTC
    assert [each.text for each in store.read()] == ["t1", ADA.text, "t3", "t4", "t5"]
    assert [each.text for each in store.read(verdicts=["accepted", "fixed"], task="classification")] == ["t3", "t5"]
    assert [each.text for each in store.read(model="m1", since="2026-01-01T03:00:00")] == ["t3", "t5"]
    assert [each.text for each in store.recent(limit=2, offset=1)] == ["t4", "t3"]
    assert [each.text for each in store.recent(model="m0")] == ["t4"]
    assert (store.count(), store.count(verdicts=("flagged",)), store.count(author="ada")) == (5, 1, 1)
    assert "verdicts must be among" in refusal(store.count, verdicts=("good",))
    assert "since must be ISO 8601" in refusal(store.count, since="yesterday")


def test_more_than_a_page_is_read_in_order_and_once(store, monkeypatch):
    monkeypatch.setattr("app.feedback.store._PAGE", 100)
    same = "2026-01-01T00:00:00Z"
    store.add([classified(f"t{i}", time=same) for i in range(550)])
    store.add([classified("last", time="2026-01-02"), classified("first", time="2025-01-02")])
    expected = ["first", *(f"t{i}" for i in range(550)), "last"]
    assert [each.text for each in store.read()] == expected
    assert [each.text for each in store.latest()] == expected


def test_the_latest_judgement_of_a_text_counts(store):
    day = "2026-01-0{}T00:00:00Z".format
    store.add(
        [
            classified("a", "new", time=day(3)),
            classified("a", "old", time=day(1)),
            classified("a", None, time=day(4), verdict="flagged"),
            classified("b", "first", time=day(2)),
            classified("b", "second", time=day(2)),
            classified("c", time=day(2), verdict="skipped"),
            replace(ADA, text="a", answer={"entities": []}, time=day(1)),
        ]
    )
    found = [(each.text, each.answer.get("label")) for each in store.latest(task="classification")]
    assert found == [("b", "second"), ("a", "new")]
    assert len(list(store.latest())) == 3


def test_agreement_is_that_of_the_last_judgements_of_a_version(store):
    verdicts = ["accepted"] * 3 + ["fixed"] * 2 + ["skipped", "flagged"] + ["accepted"]
    store.add([classified(f"t{i}", verdict=verdict, model="m", version=2) for i, verdict in enumerate(verdicts)])
    store.add([classified("x", verdict="fixed", model="m", version=3), classified("y", model="n", version=2)])
    assert store.agreement(model="m", version=2, last=100) == (4, 6)
    assert store.agreement(model="m", version=2, last=2) == (1, 2)
    assert store.agreement(model="m", version=1, last=2) == (0, 0)


def test_what_an_author_said_is_deleted_and_the_rest_stays(store):
    store.add([ADA, classified("a", author="bob"), classified("b", author="bob")])
    assert store.delete(author="bob") == 2
    assert [each.id for each in store.read()] == ["one"]
    assert store.delete(author="bob") == 0
    assert store.delete(text=ADA.text, author="bob") == 0
    assert store.delete(text=ADA.text, source="import:x") == 0
    assert store.delete(text=ADA.text, source="page") == 1
    store.add([classified("a", source="import:x"), classified("b", source="import:y")])
    assert store.delete(source="import:x") == 1
    assert [each.text for each in store.read()] == ["b"]
    assert "name an author or a text" in refusal(store.delete)


def test_deleted_texts_leave_the_files(tmp_path):
    path = tmp_path / "feedback.sqlite"
    with Store.open(f"sqlite:///{path}") as store, Store.open(f"sqlite:///{path}") as other:
        store.add([classified(f"kept {i} " + "x" * 300) for i in range(200)])
        store.add([classified("SECRET " + "y" * 20_000, author="MALLORY")])
        assert other.count() == 201
        store.add([classified(f"also kept {i}") for i in range(200)])
        held = b"".join(each.read_bytes() for each in tmp_path.iterdir())
        assert b"SECRET" in held and b"MALLORY" in held
        store.delete(author="MALLORY")
        held = b"".join(each.read_bytes() for each in tmp_path.iterdir())
        assert b"kept 7" in held and b"SECRET" not in held and b"MALLORY" not in held


def test_a_reader_that_keeps_deleted_texts_in_the_log_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    path = tmp_path / "feedback.sqlite"
    with Store.open(f"sqlite:///{path}") as store:
        store.add([classified("SECRET")])
        with sqlite3.connect(path, isolation_level=None) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM feedback_corrections").fetchall()
            with pytest.raises(RunError, match="deleted, but their bytes stay in the log .* delete once more"):
                store.delete(text="SECRET")
            assert store.count() == 0
            reader.execute("COMMIT")
        assert store.delete(text="SECRET") == 0
        assert b"SECRET" not in b"".join(each.read_bytes() for each in tmp_path.iterdir())


def test_errors_of_the_database_hold_no_texts(tmp_path):
    text = "".join(["SEC", "RET"])  # a traceback shows this file, too
    with Store.open(f"sqlite:///{tmp_path}/f.sqlite") as store:
        with sqlite3.connect(tmp_path / "f.sqlite") as other:
            other.execute("DROP TABLE feedback_queue")
        with pytest.raises(RunError) as raised:
            store.add([classified(text)])
        assert store.count() == 0
    assert text not in "".join(traceback.format_exception(raised.value))


def test_deleted_texts_leave_the_tables_of_postgres(postgres):
    import psycopg

    url = postgres.make_empty()
    with Store.open(url) as store:
        store.add([classified("SECRET", author="mallory"), classified("kept")])
        store.delete(author="mallory")
        with psycopg.connect(url) as connection:
            file = "SELECT pg_read_binary_file(pg_relation_filepath('feedback_corrections'))"
            connection.execute("CHECKPOINT")
            (held,) = connection.execute(file).fetchone()
        assert b"kept" in held and b"SECRET" not in held


def test_threads_write_at_once_without_loss(store):
    def write(thread: int) -> None:
        for i in range(25):
            store.add([classified(f"{thread} {i}", id=f"{thread}-{i}"), classified("shared", id=f"shared-{i}")])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert store.count() == 8 * 25 + 25


def test_batches_that_share_ids_in_opposite_order_are_both_stored(store):
    names = [f"id{i}" for i in range(300)]
    barrier = threading.Barrier(4)

    def write(thread: int) -> None:
        barrier.wait()
        order = names if thread % 2 else names[::-1]
        assert store.add([classified(name, id=name) for name in order]) == order

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert store.count() == 300


WRITER = """
import sys
from app.feedback.store import Correction, Store
store = Store.open(sys.argv[1])
for i in range(int(sys.argv[3])):
    (name,) = store.add([Correction(f"text {i}", "classification", {"label": "a"}, id=f"{sys.argv[2]}-{i}")])
    print(name, flush=True)
"""


def start_writer(url: str, name: str, number: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, url, name, str(number)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=PROJECT)


def test_processes_open_a_new_database_and_write_at_once_without_loss(url):
    writers = [start_writer(url, name, 20) for name in "abc"]
    acknowledged = {line for writer in writers for line in writer.communicate(timeout=60)[0].split()}
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    with Store.open(url) as store:
        assert {each.id for each in store.read()} == acknowledged and len(acknowledged) == 60


def test_what_was_acknowledged_survives_kills_and_is_stored_once(url):
    command = [sys.executable, "benchmarks/kill_store.py", f"--url={url}", "--kills=2", "--corrections=60"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    assert (found["kills"], found["acknowledged"], found["stored"]) == (2, 60, 60)
    assert (found["lost"], found["stored_twice"]) == (0, 0)


def test_the_default_is_a_file_in_the_run_directory_of_any_name(tmp_path):
    folder = tmp_path / "a run? #1 100%"
    folder.mkdir()
    with open_store("", folder) as store:
        store.add([ADA])
        assert store.name == f"sqlite:///{folder}/feedback.sqlite"
    assert (folder / "feedback.sqlite").is_file()
    with open_store("", folder) as store:
        assert store.count() == 1


def test_sqlite_writes_ahead_waits_for_the_disk_and_overwrites(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/f.sqlite") as store, store.database.reading() as connection:
        values = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                  ("journal_mode", "synchronous", "secure_delete")}  # fmt: skip
    assert values == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("sqlite:///{folder}", ["is a folder"]),
        ("sqlite:///{folder}/none/f.sqlite", ["the folder {folder}/none", "is not there"]),
        ("sqlite://", ["must name a file"]),
        ("sqlite:///:memory:", ["must name a file"]),
        ("sqlite:///{folder}/text.txt", ["{folder}/text.txt is no SQLite database"]),
        ("mysql://me:secret@host/name", ["must be sqlite:///FILE or postgresql://", "mysql://me:***@host/name"]),
        ("postgresql+nosuch://me:secret@host/name", ["postgresql+nosuch://me:***@host/name"]),
        ("feedback.sqlite", ["must be sqlite:///FILE", "received ..."]),
        ("postgresql://me:secret@host:port/name", ["must be sqlite:///FILE", "postgresql://..."]),
        ("postgresql://me:secret@127.0.0.1:1/name", ["postgresql://me:***@127.0.0.1:1/name", "refused"]),
        ("postgresql://me@127.0.0.1:1/name?password=secret", ["password=***", "refused"]),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence_without_the_password(tmp_path, url, parts):
    (tmp_path / "text.txt").write_text("no database, only text, and more than a hundred bytes of it\n" * 4)
    said = refusal(Store.open, url.format(folder=tmp_path))
    assert all(part.format(folder=tmp_path) in said for part in parts), said
    assert "secret" not in said


def test_a_wrong_password_and_a_wrong_name_are_told(postgres):
    said = refusal(Store.open, postgres.url("postgres", "wr0ng"))
    assert "refuses the user or the password" in said and "wr0ng" not in said
    assert "there is no database 'nosuch'" in refusal(Store.open, postgres.url("nosuch"))


@pytest.fixture
def ordinary_user():
    """Root may write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    yield
    if root:
        os.seteuid(0)


def test_a_folder_or_file_that_cannot_be_written_is_told(ordinary_user):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Store.open(f"sqlite:///{folder}/f.sqlite") as store:
            store.add([ADA])
        (folder / "f.sqlite").chmod(0o444)
        assert f"{folder}/f.sqlite cannot be written" in refusal(Store.open, f"sqlite:///{folder}/f.sqlite")
        folder.chmod(0o555)
        assert f"{folder} cannot be written" in refusal(Store.open, f"sqlite:///{folder}/new.sqlite")
        folder.chmod(0o755)


@pytest.mark.parametrize(("number", "age"), [(SCHEMA - 1, "an older"), (SCHEMA + 1, "a newer")])
def test_a_database_of_another_schema_is_left_alone(url, number, age):
    import sqlalchemy as sa

    with Store.open(url) as store:
        change = sa.text(f"UPDATE feedback_schema SET number={number}")
        store.database.write(lambda connection: connection.execute(change))
    said = refusal(Store.open, url)
    assert f"{age} version" in said and f"schema {number}, this one reads {SCHEMA}" in said


def test_a_database_that_fails_in_use_is_a_failed_run(tmp_path):
    path = tmp_path / "f.sqlite"
    with Store.open(f"sqlite:///{path}") as store:
        store.add([ADA])
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE feedback_corrections")
        with pytest.raises(RunError, match="no such table"):
            store.add([ADA])
        with pytest.raises(RunError, match="no such table"):
            list(store.read())


def test_a_password_is_masked():
    assert mask_url("postgresql://me:secret@host/name") == "postgresql://me:***@host/name"
    assert "secret" not in mask_url("postgresql://me:sec/ret@ho:st/secret")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": " \n"}, "text of X must be a text that is not empty, received ' \\n'"),
        ({"text": None}, "text of X must be a text that is not empty, received None"),
        ({"text": "x" * 1_000_001}, "text of X must have at most 1000000 characters, received 1000001"),
        ({"text": "ab\0"}, "text of X holds a NUL character at character 2, which cannot be stored"),
        ({"author": "\ud83d"}, "author of X holds half of a surrogate pair at character 0, which cannot be stored"),
        ({"author": "a" * 201}, "author of X must have at most 200 characters, received 201"),
        ({"model": 3}, "model of X must be a text, received 3"),
        ({"task": ""}, "task of X must not be empty"),
        ({"version": -1}, "version of X must be an integer of at least 0, received -1"),
        ({"version": True}, "version of X must be an integer of at least 0, received True"),
        ({"verdict": "good"}, "verdict of X must be one of accepted, fixed, flagged, skipped, received 'good'"),
        ({"time": "noon"}, "time of X must be ISO 8601, such as 2026-01-31T12:00:00Z, received 'noon'"),
        ({"time": 12}, "time of X must be ISO 8601, such as 2026-01-31T12:00:00Z, received 12"),
        ({"prediction": {"score": float("nan")}}, "prediction of X cannot be written as JSON"),
        ({"prediction": {"a": "x" * 8_000_001}}, "prediction of X must have at most 8000000 characters as JSON"),
        ({"answer": []}, "answer of X must be a JSON object, received []"),
        ({"answer": {}}, 'answer of X must be {"entities": [...]}, received {}'),
        ({"answer": {"label": "a"}, "task": "tagging"}, 'answer of X must be {"entities": [...]}'),
    ],
)
def test_what_cannot_be_stored_is_named(change, said):
    assert refusal(check_correction, replace(ADA, **change), where="X").startswith(said)


@pytest.mark.parametrize(
    ("entities", "said"),
    [
        ([7], "entity 1 in answer of X must be a JSON object, received 7"),
        ([(0, 30, "PER")], "must have 0 <= start < end <= 29, the characters of the text, received start 0 and end 30"),
        ([(3, 3, "PER")], "received start 3 and end 3"),
        ([(-1, 3, "PER")], "received start -1 and end 3"),
        ([(0, 3.0, "PER")], "received start 0 and end 3.0"),
        ([(True, 3, "PER")], "received start True and end 3"),
        ([(0, 3, "")], "label of entity 1 in answer of X must be a text that is not empty, received ''"),
        ([(0, 3, "PER"), (4, 12, "DATE")], "entity 2 in answer of X must be one of LOC, PER, received 'DATE'"),
        ([(4, 12, "PER"), (0, 5, "LOC")], "must not overlap, received LOC at 0 to 12 and PER at 4 to 12"),
        ([(0, 12, "PER"), (4, 8, "LOC")], "must not overlap, received PER at 0 to 12 and LOC at 4 to 12"),
        ([(4, 6, "PER"), (6, 9, "LOC")], "must not overlap, received LOC at 4 to 12 and PER at 4 to 12"),
        ([(3, 4, "PER")], "entity 1 in answer of X, PER at 3 to 4 covers no word, only ' '"),
    ],
)
def test_entities_that_are_not_in_the_text_are_named(entities, said):
    names = ("start", "end", "label")
    written = [dict(zip(names, each, strict=True)) if isinstance(each, tuple) else each for each in entities]
    wrong = replace(ADA, answer={"entities": written})
    assert said in refusal(check_correction, wrong, labels={"PER", "LOC"}, where="X")


def test_an_update_can_learn_every_entity_that_is_stored(store):
    """Models tag words: a part of a word is taken for the word, and parts of one word with one label for one entity."""
    spans = [(5, 7, "PER"), (9, 11, "PER"), (22, 24, "LOC"), (21, 26, "LOC")]
    marked = [dict(zip(("start", "end", "label"), each, strict=True)) for each in spans]
    store.add([replace(ADA, id="", answer={"entities": marked})])
    (kept,) = store.recent()
    assert [(ADA.text[each["start"] : each["end"]], each["label"]) for each in kept.answer["entities"]] == [
        ("Lovelace", "PER"), ("London", "LOC"),
    ]  # fmt: skip
    (sentence,) = read_entities(kept.text, kept.answer["entities"], number=0)
    assert sentence.tags.count("B-PER") == sentence.tags.count("B-LOC") == 1


def test_a_text_has_no_more_labels_than_the_model_gives():
    two = replace(classified("x"), answer={"labels": ["a", "b", "a"]})
    assert check_correction(two, several=True).answer == check_correction(two).answer == {"labels": ["a", "b"]}
    said = refusal(check_correction, two, several=False, where="X")
    assert said == "answer of X must have one label, as the model gives, received a, b"
    assert check_correction(replace(two, answer={"labels": ["a", "a"]}), several=False).answer == {"labels": ["a"]}


def test_offsets_of_a_browser_are_noticed_by_the_text_they_come_with():
    entity = {"start": 3, "end": 6, "label": "PER", "text": "Ada"}  # 🎉 is two units of UTF-16
    wrong = replace(ADA, text="🎉 Ada!", answer={"entities": [entity]})
    said = refusal(check_correction, wrong)
    assert "is 'da!' at 3 to 6, received the text 'Ada': offsets count characters" in said
    right = replace(wrong, answer={"entities": [{**entity, "start": 2, "end": 5}]})
    assert check_correction(right).answer == {"entities": [{"start": 2, "end": 5, "label": "PER"}]}


def test_entities_are_stored_in_the_order_of_the_text():
    backwards = replace(ADA, answer={"entities": ADA.answer["entities"][::-1]})
    assert check_correction(backwards).answer == ADA.answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"label": "bad"}, "label in answer of the correction must be one of good, received 'bad'"),
        ({"label": 3}, "label in answer of the correction must be a text that is not empty, received 3"),
        ({"labels": "good"}, "labels in answer of the correction must be a list, received 'good'"),
        ({"labels": ["good", "bad"]}, "must be one of good, received 'bad'"),
        ({"entities": []}, 'must be {"label": ...} or {"labels": [...]}'),
    ],
)
def test_labels_of_a_text_are_checked(answer, said):
    assert said in refusal(check_correction, replace(classified("x"), answer=answer), labels=["good"])


def test_a_text_may_have_no_label_or_several_and_a_flag_needs_no_answer():
    several = replace(classified("x"), answer={"labels": ["b", "a", "b"]})
    assert check_correction(several).answer == {"labels": ["b", "a"]}
    assert check_correction(classified("x", None), labels=["a"]).answer == {"label": None}
    assert check_correction(Correction("x", "tagging", verdict="flagged")).answer == {}
    assert check_correction(Correction("x", "own", {"stars": 3})).answer == {"stars": 3}


def test_json_becomes_a_correction_and_strange_fields_are_named():
    found = correction_from({"text": "x", "answer": {"label": "a"}}, task="classification", author="me")
    assert (found.task, found.author, found.answer) == ("classification", "me", {"label": "a"})
    assert "has a field 'txt'; the fields are text, task" in refusal(correction_from, {"txt": "x"}, task="tagging")
    assert "has no task" in refusal(correction_from, {"text": "x"})
    assert "must be a JSON object, received [1]" in refusal(correction_from, [1])


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_store_whose_file_was_deleted_or_replaced_says_so_and_takes_nothing(tmp_path, change):
    path = tmp_path / "store.sqlite"
    with Store.open(f"sqlite:///{path}") as store:
        store.add([Correction("Ada", "tagging", {"entities": []})])
        path.rename(tmp_path / "elsewhere")
        if change == "replaced":
            path.touch()
        with pytest.raises(RunError, match="was deleted, moved or replaced while it was in use"):
            store.add([Correction("Bob", "tagging", {"entities": []})])


def test_a_correction_from_the_future_would_be_the_last_word_for_ever():
    with pytest.raises(InputError, match="time of the correction must not be in the future"):
        check_correction(Correction("Ada", "tagging", {"entities": []}, time="9999-12-31T23:59:59Z"))


def test_what_is_said_now_is_the_last_word_even_if_a_clock_was_ahead(tmp_path):
    ahead = (datetime.now(timezone.utc) + timedelta(hours=5)).isoformat()
    with Store.open(f"sqlite:///{tmp_path}/clocks.sqlite") as store:
        store.add([Correction("Ada", "classification", {"label": "early"}, time=ahead)])
        store.add([Correction("Ada", "classification", {"label": label}) for label in ("later", "last")])
        store.add([Correction("Bob", "classification", {"label": "other"})])
        store.add([Correction("Ada", "classification", {"label": "old"}, time="2026-01-01")])
        found = {each.text: each for each in store.latest()}
    assert found["Ada"].answer == {"label": "last"} and found["Bob"].time < found["Ada"].time
