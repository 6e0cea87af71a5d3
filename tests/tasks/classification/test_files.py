"""JSON lines, class folders, and text files without labels."""

import json

import pytest

from app.config import InputError
from app.tasks.classification.corpus import check_texts_head, open_texts
from app.tasks.classification.labelled_text import TextFormat

USUAL = TextFormat()
SEVERAL = TextFormat(multi_label=True)


@pytest.fixture
def file(tmp_path):
    def write(*records, name="corpus.jsonl"):
        path = tmp_path / name
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        path.write_text("\n".join(lines), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def folder(tmp_path):
    def write(**files):
        for name, content in files.items():
            path = tmp_path / "corpus" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(tmp_path / "corpus")

    return write


def read(path, text_format=USUAL, **arguments):
    return list(open_texts(path, split="train", text_format=text_format, **arguments).examples())


@pytest.mark.parametrize(
    ("record", "text_format", "texts", "labels"),
    [
        ({"text": "one\ntwo", "label": " a "}, USUAL, ("one\ntwo",), ("a",)),
        ({"text": "x", "label": 3, "id": 7}, USUAL, ("x",), ("3",)),
        ({"text": "x", "label": True}, USUAL, ("x",), ("true",)),
        ({"text_a": "x", "text_b": "y", "label": "a"}, USUAL, ("x", "y"), ("a",)),
        ({"text": "x", "label": "a|b"}, USUAL, ("x",), ("a|b",)),
        ({"text": "x", "label": ["b", "a", "b"]}, SEVERAL, ("x",), ("a", "b")),
        ({"text": "x", "labels": [1, "b"]}, SEVERAL, ("x",), ("1", "b")),
        ({"text": "x", "labels": "b|a"}, SEVERAL, ("x",), ("a", "b")),
        ({"text": "x", "labels": []}, SEVERAL, ("x",), ()),
        ({"text": "x", "labels": None}, SEVERAL, ("x",), ()),
        ({"q": "x", "y": "a"}, TextFormat(text_column="q", label_column="y"), ("x",), ("a",)),
    ],
)
def test_a_line_is_read_as_it_is_meant(file, record, text_format, texts, labels):
    path = file("", record)
    (text,) = read(path, text_format)
    assert (text.texts, text.labels, text.line, text.number) == (texts, labels, 2, 0)
    check_texts_head(path, split="train", text_format=text_format)


FINE = {"text": "x", "label": "a"}
BAD = {
    "an empty file": ([""], USUAL, "{path} is empty"),
    "no JSON": ([FINE, "{'text'}"], USUAL, "{path}, line 2: not valid JSON, one object a line (Expecting property"),
    "a label that is no number": (
        ['{"text": "x", "label": NaN}'],
        USUAL,
        "{path}, line 1: not valid JSON, one object a line (NaN is no JSON number)",
    ),
    "a key twice": (
        ['{"text": "x", "label": "a", "label": "b"}'],
        USUAL,
        "{path}, line 1: not valid JSON, one object a line (the key 'label' is there more than once)",
    ),
    "no object": (["[1]"], USUAL, "{path}, line 1: expected an object with a text and a label, received [1]"),
    "an array": (["[", FINE, "]"], USUAL, "; a JSON array is not read: write each of its objects on a line of its own"),
    "a key of another name": (
        [FINE, {"text": "x", "lable": "a"}],
        USUAL,
        "{path}, line 2: no key 'label' (data.label_column), the keys are 'text', 'lable': did you mean "
        "data.label_column=lable?",
    ),
    "a text that is none": ([FINE, {"text": 5, "label": "a"}], USUAL, "line 2: the text must be a text, received 5"),
    "an empty text": ([FINE, {"text": "\n", "label": "a"}], USUAL, "{path}, line 2: the text is empty"),
    "no label": ([{"text": "x", "label": None}], USUAL, "{path}, line 1: the label is empty"),
    "a list where one label is allowed": (
        [{"text": "x", "label": ["a", "b"]}],
        USUAL,
        "line 1: the label must be a text, received ['a', 'b']; a text has several labels with "
        "classification.multi_label=true",
    ),
    "an object as label": ([{"text": "x", "label": [{}]}], SEVERAL, "line 1: a label must be a text, received {{}}"),
    "a label with the separator": (
        [{"text": "x", "label": ["a|b"]}],
        SEVERAL,
        "line 1: the label 'a|b' holds '|' (classification.label_separator)",
    ),
    "an empty label among others": ([{"text": "x", "label": ["a", ""]}], SEVERAL, "line 1: the label is empty"),
    "half of a surrogate pair": (
        ['{"text": "a\\ud83d", "label": "b"}'],
        USUAL,
        "line 1: the text holds half of a surrogate pair (\\ud83d at character 2)",
    ),
    "a NUL character": (['{"text": "a\\u0000", "label": "b"}'], USUAL, "line 1: the text holds a NUL character"),
    "a pair among single texts": (
        [FINE, {"text_a": "x", "text_b": "y", "label": "b"}],
        USUAL,
        "{path}, line 2: a pair of texts, the ones before are a single text each",
    ),
}


@pytest.mark.parametrize(("records", "text_format", "message"), BAD.values(), ids=BAD)
def test_a_fault_of_json_lines_is_named_with_its_place(file, records, text_format, message):
    path = file(*records)
    for look in (read, lambda *arguments: check_texts_head(arguments[0], split="train", text_format=arguments[1])):
        with pytest.raises(InputError) as error:
            look(path, text_format)
        assert message.format(path=path) in str(error.value)


def test_a_folder_for_each_label_is_read_in_the_order_of_names(folder):
    path = folder(
        **{"sport__b.txt": "two\r\nlines\r\n", "sport__a.TXT": "x", "news__10.txt": "y\n", "news__2.txt": "z"},
        **{"sport__.hidden.txt": "", ".git__x.txt": "", "readme.md": ""},
    )
    assert [(*text.texts, *text.labels) for text in read(path)] == [
        ("y", "news"),
        ("z", "news"),
        ("x", "sport"),
        ("two\nlines", "sport"),
    ]
    assert next(text.place for text in read(path)) == f"{path}/news/10.txt"
    assert open_texts(path, split="train", text_format=USUAL).notes == ()
    check_texts_head(path, split="train", text_format=USUAL)


def test_other_files_of_a_class_are_left_out_and_counted(folder):
    path = folder(**{"a__1.txt": "x", "a__2.md": "", "a__3.md": "", "b__1.txt": "y"})
    corpus = open_texts(path, split="train", text_format=USUAL)
    assert corpus.notes == (f"{path}: 2 files that do not end in .txt are left out, such as {path}/a/2.md",)


def test_texts_beside_the_class_folders_folders_inside_them_and_two_of_one_class_are_said(folder):
    path = folder(**{"a__1.txt": "x", "a__sub__1.txt": "y", "b__1.txt": "y", " b__2.txt": "z", "top.txt": "t"})
    corpus = open_texts(path, split="train", text_format=USUAL)
    assert corpus.notes == (
        f"{path}: the folders ' b' and 'b' are read as one class, 'b'; "
        f"{path}: 1 .txt files beside the class folders are left out, such as {path}/top.txt; "
        f"{path}: 1 folders inside class folders are left out, such as {path}/a/sub",
    )
    assert [(*text.texts, *text.labels) for text in corpus.examples()] == [("z", "b"), ("x", "a"), ("y", "b")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": "x", "b.txt": "y"}, "{path} holds no folder for each class, but 2 others such as 'a.txt'"),
        ({".git__x.txt": "x"}, "{path} holds no folder for each class, it is empty"),
        ({"a__1.txt": "x", "b__1.md": "y"}, "{path}/b holds no .txt file, but 1 other, '1.md'"),
        ({"a__1.txt": "x", "b__1.txt": " \n"}, "{path}/b/1.txt: the text is empty"),
        ({"a__1.txt": "x\n\xfc".encode("latin-1")}, "{path}/a/1.txt, line 2: invalid UTF-8"),
        ({"a__1.txt": "x\n\0"}, "{path}/a/1.txt, line 2: a NUL byte"),
        ({"out_of_scope__1.txt": "x"}, "{path}/out_of_scope/1.txt: the label is that of texts out of scope"),
    ],
)
def test_a_fault_of_a_folder_is_named_with_its_place(folder, files, message):
    path = folder(**files)
    with pytest.raises(InputError) as error:
        read(path)
    assert message.format(path=path) in str(error.value)
    with pytest.raises(InputError) as early:
        check_texts_head(path, split="train", text_format=USUAL)
    assert str(early.value) == str(error.value)


def test_a_text_file_without_labels_has_a_text_a_line(file):
    path = file("one", "", "two words", name="texts.txt")
    assert [(*text.texts, text.line) for text in read(path, labelled=False)] == [("one", 1), ("two words", 3)]
    with pytest.raises(InputError, match=r"texts\.txt: its ending does not say what it is, expected \.csv, "):
        read(path)


@pytest.mark.parametrize(
    ("name", "text_format", "message"),
    [
        ("none.csv", USUAL, "none.csv is missing"),
        ("none.csv", TextFormat(format="csv"), "none.csv is missing"),
        ("none", TextFormat(format="folder"), "none is missing"),
        ("texts.csv", TextFormat(format="folder"), "texts.csv is a file, not a folder"),
        ("", TextFormat(format="csv"), "is a folder, not a file"),
        ("texts.csv", TextFormat(format="conll"), "data.format=conll is none of labelled texts, allowed are auto, csv"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(file, tmp_path, name, text_format, message):
    file("text,label", name="texts.csv")
    with pytest.raises(InputError, match=message):
        read(str(tmp_path / name), text_format)
