"""Documents to tag: lines, JSON lines and whole files."""

import json
import os
import re
import threading
import tracemalloc

import pytest

from app.config import InputError
from app.data import documents
from app.data.inputs import find_inputs, read_documents


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(files):
    for name, content in files.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode("utf-8"))


def read(*inputs, **settings):
    found = [each for some in read_documents(find_inputs(inputs, **settings)) for each in some]
    return [(each.fields.get("file"), each.text) for each in found]


FILES = {
    "a.txt": "Ada\r\n\nBob",
    "b.txt": "\ufeffRome\n",
    "c.jsonl": '{"text": "Oslo"}\n\n\ufeff{"text": "Lima\\n", "id": 3}\n',
    "sub/d.txt": "",
    "sub/.hidden": "no",
    ".git/config": "no",
    "e[1].txt": "literal",
    "f,g.txt": "comma",
    "e1.txt": "glob",
}


@pytest.mark.parametrize(
    ("inputs", "settings", "expected"),
    [
        (["a.txt"], {}, [(None, "Ada"), (None, ""), (None, "Bob")]),
        (["b.txt"], {}, [(None, "Rome")]),
        (["a.txt"], {"input_format": "files"}, [(None, "Ada\r\n\nBob")]),
        (["c.jsonl"], {}, [(None, "Oslo"), (None, "Lima\n")]),
        (
            ["c.jsonl"],
            {"input_format": "lines"},
            [(None, '{"text": "Oslo"}'), (None, ""), (None, '{"text": "Lima\\n", "id": 3}')],
        ),
        (["a.txt,b.txt"], {}, [("a.txt", "Ada\r\n\nBob"), ("b.txt", "Rome\n")]),
        (["b.txt", "a.txt"], {}, [("b.txt", "Rome\n"), ("a.txt", "Ada\r\n\nBob")]),
        (["b.txt", "c.jsonl"], {}, [("b.txt", "Rome\n"), ("c.jsonl", "Oslo"), ("c.jsonl", "Lima\n")]),
        (
            ["a.txt,b.txt"],
            {"input_format": "lines"},
            [("a.txt", "Ada"), ("a.txt", ""), ("a.txt", "Bob"), ("b.txt", "Rome")],
        ),
        (["sub"], {}, [("sub/d.txt", "")]),
        (["sub/"], {}, [("sub/d.txt", "")]),
        (["[ab].txt"], {}, [("a.txt", "Ada\r\n\nBob"), ("b.txt", "Rome\n")]),
        (["**/d.txt"], {}, [("sub/d.txt", "")]),
        (["a.tx?"], {}, [("a.txt", "Ada\r\n\nBob")]),
        (["e[1].txt"], {}, [(None, "literal")]),
        (["f,g.txt"], {}, [(None, "comma")]),
        (["a.txt", "a.txt"], {}, [("a.txt", "Ada\r\n\nBob")]),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_read(inputs, settings, expected):
    write(FILES)
    assert read(*inputs, **settings) == expected


def test_a_folder_is_read_in_order_without_hidden_files_and_without_the_output():
    write(FILES)
    names = [name for name, _ in read(".", output="./c.jsonl")]
    assert names == ["./a.txt", "./b.txt", "./e1.txt", "./e[1].txt", "./f,g.txt", "./sub/d.txt"]


def test_all_other_keys_come_back():
    write({"a.jsonl": '{"id": 7, "text": "Ada", "x": {"y": [1, 2.5, null, true, "\\ud800"]}, "file": "mine"}'})
    for inputs in ("a.jsonl", "./"):
        ((document,),) = read_documents(find_inputs([inputs]))
        assert document.fields == {
            "id": 7, "text": "Ada", "x": {"y": [1, 2.5, None, True, "\ud800"]}, "file": "mine",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("files", "inputs", "message"),
    [
        ({}, ["none.txt"], "--input=none.txt cannot be read: No such file"),
        ({}, ["none*.txt"], r"--input=none\*.txt cannot be read: no file matches"),
        ({"a.txt": ""}, ["a.txt,none.txt"], "--input=none.txt cannot be read"),
        ({"a.txt": ""}, ["a.txt,"], "needs --input=FILE"),
        ({}, [], "needs --input=FILE"),
        ({"a.txt": ""}, ["-", "a.txt"], "--input=- .standard input. cannot be combined"),
        ({"x/.hidden": ""}, ["x"], "--input=x is a folder without a file"),
        ({"a.txt.gz": b"\x1f\x8b\x08"}, ["a.txt.gz"], "a.txt.gz is compressed"),
        ({"a.txt": b"ok", "b.png": b"\x89PNG\n\0"}, ["."], "./b.png, line 2: a NUL byte: a binary file, not text"),
        ({"a.txt": b"ok", "b.txt": b"x" * 70_000 + b"\n\0"}, ["."], "./b.txt, line 2: a NUL byte"),
        ({"a.txt": b"\n\nm\xfft\n"}, ["a.txt"], r"^a.txt, line 3: not UTF-8 at byte 2 \(0xff\); convert"),
        ({"a.txt": b"", "b.txt": b"one\ntw\xffo\n"}, ["."], r"^./b.txt, line 2: not UTF-8 at byte 3 \(0xff\)"),
        ({"a.jsonl": b'{"text": "a"}\n{"text": \n'}, ["a.jsonl"], "^a.jsonl, line 2: not valid JSON"),
        ({"a.jsonl": "[" * 100_000}, ["a.jsonl"], "line 1: not valid JSON"),
        ({"a.jsonl": '{"text": "a", "x": NaN}'}, ["a.jsonl"], "line 1: not valid JSON .NaN is no JSON number"),
        ({"a.jsonl": '{"text": "a", "x": 1e999}'}, ["a.jsonl"], "line 1: not valid JSON .the number 1e999 is too"),
        ({"a.jsonl": '{"text": "a", "x": {"y": 1, "y": 2}}'}, ["a.jsonl"], "not valid JSON .the key 'y' is there more"),
        ({"a.txt": "Ada met Bob".encode("utf-16")}, ["a.txt"], "a.txt is not UTF-8; it looks like UTF-16, .*iconv"),
        ({"a.txt": "Ada met Bob".encode("utf-16-le")}, ["a.txt"], "a.txt is not UTF-8; it looks like UTF-16"),
        ({"a.jsonl": '[\n{"text": "a"}\n]'}, ["a.jsonl"], "line 1: not valid JSON .*; a JSON array is not read: write"),
        ({"a.jsonl": '{\n"text": "a"\n}'}, ["a.jsonl"], "line 1: not valid JSON .*; an object must be on one line"),
        ({"a.jsonl": '["a"]'}, ["a.jsonl"], 'line 1: expected an object with the key "text", received'),
        ({"a.jsonl": '{"txt": "a", "id": 1}'}, ["a.jsonl"], """there is no key "text"; the keys are 'txt', 'id'"""),
        ({"a.jsonl": '{"text": null}'}, ["a.jsonl"], '"text" must be a text, received None'),
        ({"a.jsonl": '{"text": "Ada \\ud83d"}'}, ["a.jsonl"], '"text" holds half of a surrogate pair .*character 5'),
        ({"a.jsonl": b'{"text": "a\xff"}'}, ["a.jsonl"], "line 1: not UTF-8 at byte 12"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_its_line(files, inputs, message):
    write(files)
    with pytest.raises(InputError, match=message):
        read(*inputs)


def test_what_is_wrong_at_the_beginning_is_found_before_anything_is_read():
    write({"a.txt": "ok", "b.png": b"\0", "c.txt": "ok"})
    for inputs in (["."], ["a.txt,none.txt"]):
        with pytest.raises(InputError):
            find_inputs(inputs)


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", '{"text": "Ada"}\n{'), ("a.txt", b"Ada\n\xff")])
def test_documents_before_a_fault_are_given_out(name, content):
    write({name: content})
    found = []
    with pytest.raises(InputError):
        for some in read_documents(find_inputs([name])):
            found += some
    assert [each.text for each in found] == ["Ada"]


@pytest.mark.parametrize("input_format", ["lines", "jsonl", "files"])
def test_a_document_that_is_too_long_is_named(monkeypatch, input_format):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 200_000)
    write({"a.txt": "x\n" * 50 + "y" * 300_000})
    place = "a.txt .300,100 bytes." if input_format == "files" else "a.txt, line 51"
    if input_format == "jsonl":
        write({"a.txt": '{"text": ""}\n' * 50 + "y" * 300_000})
    with pytest.raises(InputError, match=rf"{place} is longer than a document may be \(200,000 bytes\)"):
        read("a.txt", input_format=input_format)


def test_memory_does_not_grow_with_the_number_of_documents():
    write({"a.txt": "some words of a line\n" * 30_000, **{f"many/{i:03}.txt": "words " * 1000 for i in range(100)}})
    for inputs in ("a.txt", "many"):
        tracemalloc.start()
        assert sum(len(some) for some in read_documents(find_inputs([inputs]))) in (30_000, 100)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_500_000  # held whole, the lines are more than 10 MB


def test_a_pipe_is_read_once_and_as_it_comes():
    os.mkfifo("pipe")
    step = threading.Event()

    def write_slowly():
        with open("pipe", "wb", buffering=0) as pipe:
            pipe.write(b"Ada\nBo")
            assert step.wait(20)
            pipe.write(b"b\n")

    thread = threading.Thread(target=write_slowly)
    thread.start()
    found = []
    for some in read_documents(find_inputs(["pipe"])):
        found.append([each.text for each in some])
        step.set()
    thread.join()
    assert found == [["Ada"], ["Bob"]]


def test_json_lines_may_be_named_by_the_setting():
    write({"a.log": json.dumps({"text": "Ada"})})
    assert read("a.log", input_format="jsonl") == [(None, "Ada")]
    assert re.match(r'\{"text"', read("a.log")[0][1])


@pytest.mark.parametrize("name", ["[ab]", "a*", "x,y", os.fsdecode(b"\xff")])
def test_a_folder_whose_name_looks_like_a_glob_or_a_list_may_hold_the_inputs(tmp_path, name):
    (tmp_path / name).mkdir()
    for file in ("1.txt", "2.txt", name):
        (tmp_path / name / file).write_text("Ada")
    every = [f"{tmp_path}/{name}/{file}" for file in ("1.txt", "2.txt")]
    assert [each.path for each in find_inputs([f"{tmp_path}/{name}/*.txt"])] == every
    both = find_inputs([f"{tmp_path}/{name}/{name},{every[0]}"])
    assert [each.path for each in both] == [f"{tmp_path}/{name}/{name}", every[0]]


@pytest.mark.parametrize("inputs", [["a.txt"], ["*.txt"], ["a.txt,b.txt"], ["link"]])
def test_answers_never_replace_the_text_they_answer(tmp_path, monkeypatch, inputs):
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("Ada\n")
    (tmp_path / "link").symlink_to("a.txt")
    with pytest.raises(InputError, match="--output=.*a.txt is one of the inputs .*: the answers would"):
        find_inputs(inputs, output=str(tmp_path / "a.txt"))
