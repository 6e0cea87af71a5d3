"""What a classifier answers: tables, JSON lines with keys of their own, pairs of texts; nothing of an input is lost."""

import json
from pathlib import Path

import pytest
import toy

from app import api, checks
from app.config import InputError
from app.config.loading import load_config
from app.modes import predict
from app.run.directory import Request, RunDirectory
from app.tasks.bundle import save_model
from app.text.shapes import NUM_SHAPES


def save_run(folder: Path, model, settings: list[str]) -> RunDirectory:
    """A run as far as answers need one."""
    run_dir = RunDirectory(folder)
    run_dir.write_config(load_config(None, settings))
    save_model(model, run_dir.model, shape_count=NUM_SHAPES, card="")
    return run_dir


@pytest.fixture(scope="module")
def runs(tmp_path_factory, vocabulary) -> dict[str, RunDirectory]:
    folder = tmp_path_factory.mktemp("runs")
    usual = ["task=classification", "data.max_length=32", "data.overlap_tokens=8", "data.text_column=body"]
    return {
        "single": save_run(folder / "single", toy.make_classifier(vocabulary), usual),
        "pairs": save_run(folder / "pairs", toy.make_classifier(vocabulary, facts={"pairs": True}), usual),
    }


def ask(run: RunDirectory, content: str, folder: Path, *settings: str, name: str) -> list[dict]:
    """Rows of `--mode=predict` on a file of this name and content, after its checks."""
    (folder / name).write_text(content, encoding="utf-8")
    config = load_config(None, list(settings), defaults=str(run.config_yaml))
    request = Request(config, run, input=str(folder / name), output=str(folder / "out.jsonl"))
    checks.check("predict", request)
    predict.run(request)
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def test_the_rows_of_a_table_are_answered_and_its_other_columns_come_back(runs, tmp_path):
    table = 'id,body,label,score\n7,"Ada saw\nRome .",person,\n8,the house,neither,0.5\n'
    rows = ask(runs["single"], table, tmp_path, name="in.csv")
    same = ask(runs["single"], table.replace(",", ";"), tmp_path, name="semicolons.csv")
    alone = api.load(runs["single"].path).predict(["Ada saw\nRome .", "the house"])
    assert [row["body"] for row in rows] == [row["text"] for row in rows] == ["Ada saw\nRome .", "the house"]
    given = [(row["id"], row["given_label"], row["given_score"]) for row in rows]
    assert given == [("7", "person", ""), ("8", "neither", "0.5")]
    assert [{key: row[key] for key in alone[0]} for row in rows] == alone and same == rows
    lines = ask(runs["single"], table, tmp_path, "predict.input_format=lines", name="in.csv")
    assert [row["text"] for row in lines] == table.splitlines()


def test_json_lines_may_have_the_key_of_the_training_corpus_or_text(runs, tmp_path):
    lines = ['{"body": "Ada saw Rome .", "scores": 1}', '{"text": "Ada saw Rome .", "label": null}']
    first, second = ask(runs["single"], "\n".join(lines), tmp_path, name="in.jsonl")
    assert list(first) == ["body", "given_scores", "text", "label", "score", "scores"] and first["given_scores"] == 1
    assert list(second) == ["text", "given_label", "label", "score", "scores"] and second["given_label"] is None
    assert first["scores"] == second["scores"] and first["text"] == second["text"]


def test_pairs_come_under_the_keys_they_were_learnt_from_or_with_a_tab_between_them(runs, tmp_path):
    run = runs["pairs"]
    (table,) = ask(run, "text_a,text_b,id\nAda saw .,Rome .,7\n", tmp_path, name="in.csv")
    keys, joined = ask(
        run, '{"text_a": "Ada\\tsaw .", "text_b": "Rome .", "text": "x"}\n{"text": "Ada saw .\\tRome ."}', tmp_path,
        name="in.jsonl",
    )  # fmt: skip
    (line,) = ask(run, "Ada saw .\tRome .\n", tmp_path, name="in.txt")
    assert table["text"] == line["text"] == "Ada saw .\tRome ." and table["id"] == "7" and keys["given_text"] == "x"
    assert table["scores"] == line["scores"] == joined["scores"] == keys["scores"]
    model = api.load(run.path)
    answers = model.predict([("Ada saw .", "Rome ."), "Ada saw .\tRome .", ["Rome .", "Ada saw ."]])
    assert answers[0] == answers[1] == line and answers[2]["scores"] != line["scores"]


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"),
    [
        ("pairs", "in.txt", "a\tb\nno tab\n", "line 2: the text must be two texts with a tab between them, as the"),
        ("pairs", "in.txt", "a\t \n", "line 1: the text must be two texts .*, and the second one is empty"),
        ("pairs", "in.jsonl", '{"text_a": "", "text_b": "x"}', "line 1: the text .*, and the first one is empty"),
        ("pairs", "in.jsonl", '{"text_a": "x"}',
         'no key "text_a" and "text_b", nor "body" or "text" with a tab .*text_a'),
        ("pairs", "in.csv", "body,label\nx,y\n", "in.csv, line 2: the text must be two texts"),
        ("single", "in.csv", "txt,label\nx,y\n",
         """line 1: there is no column "body" or "text"; the columns are 'txt'"""),
        ("single", "in.csv", "body,a,a\nx,y,z\n", "line 1: the column 'a' is there 2 times: rename one"),
        ("single", "in.csv", "body,label\nx\n", "in.csv, line 2: 1 field, the header has 2"),
        ("single", "in.jsonl", '{"text_a": "x", "text_b": "y"}', """no key "body" or "text"; the keys are 'text_a'"""),
    ],
)  # fmt: skip
def test_what_is_no_text_of_the_model_is_told_with_its_line(runs, tmp_path, kind, name, content, message):
    with pytest.raises(InputError, match=message) as raised:
        ask(runs[kind], content, tmp_path, name=name)
    assert "\n" not in str(raised.value) and not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a\tb", "no tab"], r"texts\[1\] must be two texts with a tab between them"),
        (("a", "b"), r"texts\[0\] must be two texts with a tab"),
        ([("a", "")], r"texts\[0\] must be two texts .* the second one is empty"),
        ([("a", "b", "c")], r"texts\[0\] must be two texts, or one with a tab .* received \('a', 'b', 'c'\)"),
    ],
)
def test_what_is_no_pair_is_told_to_a_program(runs, texts, message):
    from app.data.documents import check_texts

    with pytest.raises(InputError, match=message):
        check_texts(texts, pairs=True)
    with pytest.raises(InputError, match=r"texts\[0\] must be a text, received \('a', 'b'\)"):
        check_texts([("a", "b")])


def test_a_tagger_refuses_a_table_and_says_what_it_reads(tmp_path, monkeypatch):
    from app.data.documents import TextKeys
    from app.data.inputs import find_inputs

    monkeypatch.chdir(tmp_path)
    for name in ("a.CSV", "b.tsv", "c.txt"):
        (tmp_path / name).write_text("text,label\nAda,x\n")
    tagger = TextKeys(tables=False)
    for inputs, remedy in ((["a.CSV"], "input_format=lines takes"), (["c.txt,b.tsv"], "input_format=files takes")):
        with pytest.raises(InputError, match=rf"{inputs[0][-5:]} is a table, .* JSON lines .*{remedy}"):
            find_inputs(inputs, keys=tagger)
        assert find_inputs(inputs, keys=tagger, input_format="lines")
