"""`--mode=predict`: any text in, entities whose offsets slice it out."""

import dataclasses
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import toy

from app import checks
from app.config import InputError, PredictConfig
from app.config.loading import load_config
from app.evaluation.runtimes import build_predictor
from app.modes import predict
from app.run.directory import Request, RunDirectory
from app.tasks.bundle import load_model, save_model
from app.tasks.network import build_encoder
from app.text.shapes import NUM_SHAPES


@pytest.fixture
def run_predict(trained_run, tmp_path):
    """Runs the mode on bytes; returns the rows of its output."""

    def run(content: bytes, *settings: str, name: str = "input.txt") -> list[dict]:
        source, target = tmp_path / name, tmp_path / "output.jsonl"
        source.write_bytes(content)
        config = load_config(None, list(settings), defaults=str(trained_run.path / "config.yaml"))
        predict.run(Request(config, RunDirectory(trained_run.path), input=str(source), output=str(target)))
        lines = target.read_text(encoding="utf-8").split("\n")
        assert lines.pop() == ""
        return [json.loads(line) for line in lines]

    return run


def check(row: dict, text: str) -> None:
    """The contract of one output row."""
    assert row["text"] == text and list(row) == ["text", "entities"]
    end = 0
    for entity in row["entities"]:
        assert list(entity) == ["start", "end", "label", "text", "score"]
        assert end <= entity["start"] < entity["end"] <= len(text)
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert entity["label"] in ("PER", "LOC") and 0 < entity["score"] <= 1
        end = entity["end"]


def test_names_of_the_toy_corpus_are_found_with_their_offsets(run_predict):
    text = "the old Ada Smith met and saw Rome ."
    (row,) = run_predict(text.encode())
    check(row, text)
    assert [(e["start"], e["end"], e["label"]) for e in row["entities"]] == [(8, 17, "PER"), (30, 34, "LOC")]


TEXTS = {
    "emoji": "👩‍👩‍👧 Ada met 🎉 Bob in Rome 🇫🇷 .",
    "combining marks": "the A\u0301da and Ada\u0308 met Bo\u0302b in Ro\u0308me .",
    "right to left": "Ada \u200fפגשה את\u200f Bob in \u0631\u0648\u0645\u0627 Rome .",
    "NUL bytes": "Ada\x00met Bob\x00\x00 in Rome\x00",
    "control characters": "\x01Ada\x7f met\u200b Bob\u2028in\u2029Rome \x0b.",
    "han": "王小明在北京 met Ada 。",
    "astral letters": "𝐀𝐝𝐚 met 𐐀𐐁 in Rome",
    "no-break spaces": "Ada\u00a0Smith\u202fmet Rome",
    "quotes and json": 'Ada said "\\u0041" \\ / Rome',
}


def test_offsets_slice_the_text_as_given(run_predict):
    rows = run_predict("".join(f"{text}\n" for text in TEXTS.values()).encode())
    assert len(rows) == len(TEXTS)
    for row, text in zip(rows, TEXTS.values(), strict=True):
        check(row, text)


def test_random_unicode_keeps_the_contract(run_predict):
    rng = random.Random(3)
    pool = [*map(chr, (*range(0x20, 0x7F), *range(0x300, 0x320), *range(0x5D0, 0x5EA), *range(0x1F600, 0x1F640)))]
    words = [*toy.PEOPLE, *toy.PLACES, "\x00", "\u200d", "\ufe0f", "\u202e", "\U000e0041"]
    texts = [
        "".join(rng.choice(words) if rng.random() < 0.2 else rng.choice(pool) for _ in range(120)) for _ in range(60)
    ]
    rows = run_predict("".join(f"{text}\n" for text in texts).encode())
    assert len(rows) == 60
    for row, text in zip(rows, texts, strict=True):
        check(row, text)


def test_what_is_no_name_is_dropped_unless_the_setting_or_the_training_corpus_keeps_it(trained_run):
    """The real predictor, on logits that take every word for a person."""
    tagger = load_model(trained_run.path / "model")
    number = tagger.labels.index("B-PER")

    def forward(features):
        return np.tile(50 * np.eye(len(tagger.labels), dtype=np.float32)[number], (*features["token_ids"].shape, 1))

    config = load_config(None, [], defaults=str(trained_run.path / "config.yaml"))
    predictor = build_predictor(tagger, build_encoder(tagger, config.data), batch_size=4, forward=forward)

    def found(tagger, drop):
        (row,) = tagger.task.answer_texts(tagger, [text], predictor, PredictConfig(drop_non_names=drop))
        check(row, text)
        return [entity["text"] for entity in row["entities"]]

    text = "Ada 🎉 ann@x.org 12 @ann\nRome , 3.5 % ~/Bob/x"
    assert found(tagger, True) == ["Ada", "Rome"]
    everything = ["Ada", "🎉", "ann@x.org", "12", "@ann", "Rome", ",", "3.5", "%", "~", "/", "Bob", "/", "x"]
    assert found(tagger, False) == everything
    assert found(dataclasses.replace(tagger, facts={"non_name_types": ("PER",)}), True) == everything
    assert found(dataclasses.replace(tagger, facts={"non_name_types": ("LOC",)}), True) == ["Ada", "Rome"]


def test_every_line_is_a_document_empty_ones_too(run_predict):
    rows = run_predict(b"\nAda met Bob\n\n   \n\x00\nRome")
    assert [row["text"] for row in rows] == ["", "Ada met Bob", "", "   ", "\x00", "Rome"]
    assert [bool(row["entities"]) for row in rows] == [False, True, False, False, False, True]


def test_an_empty_file_gives_no_rows(run_predict):
    assert run_predict(b"") == []


def test_a_byte_order_mark_and_windows_line_ends_are_not_text(run_predict):
    assert [row["text"] for row in run_predict(b"\xef\xbb\xbfAda\r\nBob\r\n")] == ["Ada", "Bob"]


def test_documents_do_not_depend_on_their_neighbours(run_predict):
    lines = [" ".join(sentence.words) for sentence in toy.make_sentences(40, seed=5)]
    together = run_predict("\n".join(lines).encode())
    alone = [run_predict(line.encode())[0] for line in lines[:2]]
    for one, other in zip(alone, together, strict=False):
        assert [(e["start"], e["end"], e["label"]) for e in one["entities"]] == [
            (e["start"], e["end"], e["label"]) for e in other["entities"]
        ]


def test_low_scores_are_left_out_on_request(run_predict):
    text = " ".join(sentence_word for s in toy.make_sentences(30, seed=6) for sentence_word in s.words).encode()
    (everything,) = run_predict(text)
    scores = sorted(entity["score"] for entity in everything["entities"])
    limit = scores[len(scores) // 2]
    (rest,) = run_predict(text, f"predict.min_score={limit}")
    assert rest["entities"] == [entity for entity in everything["entities"] if entity["score"] >= limit]


HUGE = 300_000  # characters; a million are cut into sentences in text/test_raw_text.py


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(("Rome . " * 20_000 + "Ada met Bob " * 20_000)[:HUGE], id="sentences and one that never ends"),
        pytest.param("x" * HUGE, id="one word"),
    ],
)
def test_a_huge_document_is_tagged(run_predict, text):
    (row,) = run_predict(text.encode())
    check(row, text)
    assert bool(row["entities"]) == (" " in text)


def test_invalid_utf_8_is_bad_input_with_its_line_and_leaves_no_output(run_predict, tmp_path):
    with pytest.raises(InputError, match=r"input\.txt, line 3: not UTF-8 at byte 5 \(0xff\)"):
        run_predict(b"Ada\n\nmet \xffBob\nRome\n")
    assert [path.name for path in tmp_path.iterdir()] == ["input.txt"]


def test_an_older_output_stays_until_the_new_one_is_complete(run_predict, tmp_path):
    run_predict(b"Ada\n")
    before = (tmp_path / "output.jsonl").read_bytes()
    with pytest.raises(InputError):
        run_predict(b"Bob\n\xff\n")
    assert (tmp_path / "output.jsonl").read_bytes() == before
    run_predict(b"Bob\n")
    assert b"Bob" in (tmp_path / "output.jsonl").read_bytes()


def test_a_pipe_a_device_and_a_link_are_written_to_and_stay_and_names_may_be_odd(trained_run, tmp_path):
    config = load_config(None, defaults=str(trained_run.path / "config.yaml"))
    source = tmp_path / os.fsdecode(b"-[1]\xff")
    source.write_text("Ada\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/*")
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    for target in ("/dev/null", tmp_path / "pipe", tmp_path / "link"):
        predict.run(Request(config, RunDirectory(trained_run.path), input=str(source), output=str(target)))
    check(json.loads(reader.communicate(timeout=20)[0]), "Ada")
    check(json.loads((tmp_path / "elsewhere" / "*").read_text()), "Ada")
    assert (tmp_path / "link").is_symlink() and Path("/dev/null").is_char_device() and (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(("name", "message"), [("missing.txt", "cannot be read"), (".", "is a folder without a file")])
def test_an_input_that_cannot_be_read_is_bad_input(trained_run, tmp_path, name, message):
    config = load_config(None, defaults=str(trained_run.path / "config.yaml"))
    request = Request(config, RunDirectory(trained_run.path), input=str(tmp_path / name))
    with pytest.raises(InputError, match=rf"--input=.* {message}"):
        predict.run(request)


def test_what_stands_beside_the_text_of_a_json_line_comes_back(run_predict):
    lines = [
        {"id": 7, "text": "Ada met Bob", "meta": {"a": [1, None, 0.5]}, "lost": "\ud83d"},
        {"text": "Rome", "id": "x", "entities": "of another model"},
    ]
    rows = run_predict("\n".join(map(json.dumps, lines)).encode(), name="input.jsonl")
    assert [list(row) for row in rows] == [
        ["id", "text", "meta", "lost", "entities"], ["text", "id", "given_entities", "entities"],
    ]  # fmt: skip
    lines[1]["given_entities"] = lines[1].pop("entities")
    for row, line in zip(rows, lines, strict=True):
        assert {**line, "entities": row["entities"]} == row
        check({"text": row["text"], "entities": row["entities"]}, line["text"])
        assert row["entities"]


def test_files_of_a_folder_are_a_document_each(trained_run, tmp_path):
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    texts = {"a.txt": "Ada met\r\n\nBob\n", "b.txt": "", "more/c.txt": "Rome " * 2_000}
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
    config = load_config(None, defaults=str(trained_run.path / "config.yaml"))
    output = folder / "out.jsonl"
    output.write_text('{"text": "an answer of the time before"}\n')
    found = predict.run(Request(config, RunDirectory(trained_run.path), input=str(folder), output=str(output)))
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [list(row) for row in rows] == [["file", "text", "entities"]] * 3
    assert {row.pop("file"): row["text"] for row in rows} == {str(folder / name): text for name, text in texts.items()}
    for row, text in zip(rows, texts.values(), strict=True):
        check(row, text)
    assert found["predict/documents"] == 3 and rows[0]["entities"] and len(rows[2]["entities"]) > 100


def test_a_fault_in_a_later_line_or_file_leaves_the_answers_before_it(trained_run, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"text": "Ada", "id": 1}\n')
    (tmp_path / "b.txt").write_bytes(b"Bob\nmet \xff")
    config = load_config(None, ["predict.format=jsonl"], defaults=str(trained_run.path / "config.yaml"))
    first, *others = (str(tmp_path / name) for name in ("a.jsonl", "b.txt"))
    with pytest.raises(InputError, match=r"b\.txt, line 2: not UTF-8 at byte 5"):
        predict.run(Request(config, RunDirectory(trained_run.path), input=first, more_inputs=tuple(others)))
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert row["id"] == 1 and row["file"] == first


def test_a_terminal_shows_the_entities_in_the_text(trained_run, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    (tmp_path / "in.txt").write_text("the old Ada Smith met and saw Rome .\n")

    monkeypatch.setattr("sys.stdout", Terminal())
    config = load_config(None, defaults=str(trained_run.path / "config.yaml"))
    predict.run(Request(config, RunDirectory(trained_run.path), input=str(tmp_path / "in.txt")))
    text = re.sub(r"\x1b\[[0-9;]*m|[01]\.\d\d", "", sys.stdout.getvalue())
    assert text.splitlines()[1] == "the old [Ada Smith PER ] met and saw [Rome LOC ] ."
    tagger = load_model(trained_run.path / "model")
    for form, to_file, begins in (("jsonl", False, "{"), ("auto", True, "{"), ("text", True, "entities: ")):
        target = Terminal()
        predict._shown_in(target, form, tagger, to_file=to_file)({"text": "", "entities": []})
        assert target.getvalue().startswith(begins)


def test_an_answer_arrives_while_standard_input_is_still_open(trained_run, tmp_path, monkeypatch, app_process):
    """Also: output is UTF-8 whatever the locale, and one bad line later ends with status 2."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    process = app_process(
        "--mode=predict", f"--run_dir={trained_run.path}", "--input=-",
        cwd=tmp_path, stdin=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    answers: list[dict] = []
    reader = threading.Thread(target=lambda: answers.extend(map(json.loads, process.stdout)), daemon=True)
    reader.start()
    for number, line in enumerate(("Ada met Bob 🎉", "Rome"), start=1):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        limit = time.monotonic() + 100
        while len(answers) < number and time.monotonic() < limit and process.poll() is None:
            time.sleep(0.01)
        assert len(answers) == number, process.stderr.read() if process.poll() is not None else "no answer"
        check(answers[-1], line)
    assert process.poll() is None
    process.stdin.buffer.write(b"\xc3\n")
    process.stdin.close()
    assert process.wait(timeout=60) == 2
    messages = process.stderr.read()
    announced, _, messages = messages.partition("\n")
    assert announced == "predict: loading TensorFlow ..."
    assert messages == "error: standard input, line 3: not UTF-8 at byte 1 (0xc3); convert the text to UTF-8\n"


# What a person should look at next.


def values_of(rows: list[dict]) -> list[float]:
    return [row["uncertainty"] for row in rows]


@pytest.mark.parametrize("rank", ["uncertainty", "diversity"])
def test_ranked_texts_come_least_sure_first_with_all_that_stood_beside_them(run_predict, rank):
    texts = [" ".join(sentence.words) for sentence in toy.make_sentences(20, seed=8)] + ["", "Jordan"]
    lines = [{"id": number, "text": text, "lost": "\ud83d"} for number, text in enumerate(texts)]
    content = "\n".join(map(json.dumps, lines)).encode()
    rows = run_predict(content, f"predict.rank={rank}", name="input.jsonl")
    plain = run_predict(content, name="input.jsonl")
    assert [row["rank"] for row in rows] == list(range(1, len(texts) + 1))
    for row in rows:
        place = {"uncertainty": row["uncertainty"], "rank": row["rank"], "occurrences": 1}
        assert row == plain[row["id"]] | place
        assert 0 <= row["uncertainty"] <= 1
    assert sorted(row["id"] for row in rows) == list(range(len(texts)))
    assert rows[-1]["text"] == "" and rows[-1]["uncertainty"] == 0 < rows[0]["uncertainty"]
    first = run_predict(content, f"predict.rank={rank}", "predict.top=5", name="input.jsonl")
    assert len(first) == 5
    if rank != "diversity":
        assert values_of(rows) == sorted(values_of(rows), reverse=True) and first == rows[:5]


def test_a_text_that_is_several_times_in_a_file_is_ranked_once(run_predict):
    texts = ["Jordan", "met", "Jordan", "Rome"]
    lines = [{"id": number, "text": text, "rank": "A"} for number, text in enumerate(texts)]
    rows = run_predict("\n".join(map(json.dumps, lines)).encode(), "predict.rank=uncertainty", name="input.jsonl")
    found = sorted((row["id"], row["text"], row["occurrences"]) for row in rows)
    assert found == [(0, "Jordan", 2), (1, "met", 1), (3, "Rome", 1)]
    assert [(row["rank"], row["given_rank"]) for row in rows] == [(1, "A"), (2, "A"), (3, "A")]


def test_names_that_may_be_either_are_what_the_model_is_least_sure_of(run_predict):
    names = [*toy.PEOPLE, *toy.PLACES, toy.AMBIGUOUS]
    pairs = [(words, name) for words in ("met", "in the", "saw") for name in names]
    lines = [json.dumps({"text": f"{words} {name}", "name": name}) for words, name in pairs]
    rows = run_predict("\n".join(lines).encode(), "predict.rank=uncertainty", "predict.top=3", name="input.jsonl")
    assert [row["name"] for row in rows].count(toy.AMBIGUOUS) >= 2


def test_runs_disagree_where_one_was_trained_on_less(run_predict, trained_run, tmp_path):
    text = b"the old Ada Smith met and saw Rome .\nJordan\n"
    same = run_predict(text, "predict.rank=disagreement", f"predict.other_run={trained_run.path}")
    assert values_of(same) == [0.0, 0.0]
    for row in same:
        assert row["other_answer"] == {"entities": row["entities"]}
    other = load_model(trained_run.path / "model")
    kernel = other.head.own_variables()["kernel"]
    kernel.assign(-kernel)
    run = Path(trained_run.copy(tmp_path / "run"))
    save_model(other, run / "model", shape_count=NUM_SHAPES, card="")
    rows = run_predict(text, "predict.rank=disagreement", f"predict.other_run={run}")
    assert values_of(rows)[0] > 0.1 and values_of(rows) == sorted(values_of(rows), reverse=True)
    assert any(row["other_answer"] != {"entities": row["entities"]} for row in rows)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["predict.rank=entrpoy"], "predict.rank must be one of empty, uncertainty, .* mean entropy.*'entrpoy'"),
        (["predict.top=3"], "predict.top.*predict.rank"),
        (["predict.rank=margin", "predict.top=-1"], "predict.top"),
        (["predict.rank=disagreement"], "disagreement needs another run"),
        (["predict.rank=margin", "predict.other_run=runs/x"], "disagreement needs another run"),
    ],
)
def test_settings_of_a_ranking_that_cannot_be_are_told(trained_run, settings, said):
    with pytest.raises(InputError, match=said):
        load_config(None, settings, defaults=str(trained_run.path / "config.yaml"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "classification"}, r"other_run: .* is of task=classification, it must be of task=tagging"),
        ({"labels": ["O", "B-X", "I-X"]}, r"has the labels O, B-X, I-X, this run has O, B-LOC, .*must be the same"),
        (None, r"other_run: .*does not exist|does not exist: .*predict.other_run"),
    ],
)
def test_another_run_of_another_kind_is_refused_before_anything_is_loaded(trained_run, tmp_path, change, said):
    run = tmp_path / "other"
    if change:
        trained_run.copy(run)
        path = run / "model" / "tagger.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        sums = run / "model" / "SHA256SUMS"
        digests = dict(reversed(line.split()) for line in sums.read_text().splitlines())
        digests["tagger.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
        sums.write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))
    (tmp_path / "in.txt").write_text("Ada\n")
    settings = ["predict.rank=disagreement", f"predict.other_run={run}"]
    config = load_config(None, settings, defaults=str(trained_run.path / "config.yaml"))
    request = Request(config, RunDirectory(trained_run.path), input=str(tmp_path / "in.txt"))
    for check in (checks.check_predict, predict.run):
        with pytest.raises(InputError, match=said):
            check(request)


def test_files_of_too_many_texts_are_refused_before_anything_is_loaded(trained_run, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "Ada"}\n\n{"text": "Bob"}\n')
    (tmp_path / "b.txt").write_text("Cleo\n\n")
    names = [str(tmp_path / name) for name in ("a.jsonl", "b.txt")]

    def check(limit: int, *more: str) -> None:
        settings = ["predict.rank=margin", f"predict.rank_limit={limit}", *more]
        config = load_config(None, settings, defaults=str(trained_run.path / "config.yaml"))
        run = RunDirectory(trained_run.path)
        checks.check_predict(Request(config, run, input=names[0], more_inputs=(names[1],), output="/dev/null"))

    check(3)  # two lines that are not blank, and a file
    check(4, "predict.input_format=files")
    with pytest.raises(InputError, match="more than 2 texts"):
        check(2)
    with pytest.raises(InputError, match="more than 1 texts"):
        check(1, "predict.input_format=files")


def test_a_pipe_that_never_ends_is_not_ranked_but_ends_at_the_limit(trained_run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["yes", "Ada met Bob"], stdout=os.open(tmp_path / "pipe", os.O_RDWR))
    config = load_config(
        None, ["predict.rank=margin", "predict.rank_limit=100"], defaults=str(trained_run.path / "config.yaml")
    )
    target = tmp_path / "out.jsonl"
    request = Request(config, RunDirectory(trained_run.path), input=str(tmp_path / "pipe"), output=str(target))
    try:
        with pytest.raises(InputError, match=r"more than 100 texts \(predict.rank_limit\), and ranking needs its end"):
            predict.run(request)
    finally:
        writer.kill()
        writer.wait()
    assert not target.exists()


def test_a_run_without_a_model_says_what_to_do(trained_run, tmp_path):
    run = Path(trained_run.copy(tmp_path / "run"))
    (run / "model").rename(tmp_path / "elsewhere")
    (tmp_path / "in.txt").write_text("Ada\n")
    config = load_config(None, defaults=str(run / "config.yaml"))
    with pytest.raises(InputError, match=r"has not finished.*run the same command"):
        predict.run(Request(config, RunDirectory(run), input=str(tmp_path / "in.txt")))
