"""CSV and TSV files of labelled texts."""

import csv
import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config import InputError
from app.tasks.classification.corpus import HEAD_BYTES, check_texts_head, open_texts
from app.tasks.classification.labelled_text import TextFormat

USUAL = TextFormat()
SEVERAL = TextFormat(multi_label=True)


@pytest.fixture
def file(tmp_path):
    def write(content, name="corpus.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def read(path, text_format=USUAL, **arguments):
    return list(open_texts(path, split="train", text_format=text_format, **arguments).examples())


def rows(path, text_format=USUAL, **arguments):
    return [(*text.texts, *text.labels, text.line) for text in read(path, text_format, **arguments)]


GOOD = {
    "the usual": ("text,label\nIt came.,good\nIt broke.,bad\n", [("It came.", "good", 2), ("It broke.", "bad", 3)]),
    "columns in any order, others left out": ("id,label,text\n1,good,It came.\n", [("It came.", "good", 2)]),
    "no line end after the last row": ("text,label\nIt came.,good", [("It came.", "good", 2)]),
    "a comma and quotes": ('text,label\n"Yes, ""now"".",good\n', [('Yes, "now".', "good", 2)]),
    "a quote inside a field without quotes": ('text,label\n5" wide,good\n', [('5" wide', "good", 2)]),
    "a line break in a field": ('text,label\n"one\n\ntwo",a\nx,b\n', [("one\n\ntwo", "a", 2), ("x", "b", 5)]),
    "CRLF": ('text,label\r\n"one\r\ntwo",a\r\nx,b\r\n', [("one\ntwo", "a", 2), ("x", "b", 4)]),
    "a byte order mark": (b"\xef\xbb\xbftext,label\nx,a\n", [("x", "a", 2)]),
    "a byte order mark and a quoted header": (b'\xef\xbb\xbf"text","label"\nx,a\n', [("x", "a", 2)]),
    "blank lines and empty rows": ("\ntext,label\n\nx,a\n,\n\ny,b\n\n", [("x", "a", 4), ("y", "b", 7)]),
    "blanks around names and labels": (" text , label\n x , a \n", [(" x ", "a", 2)]),
    "labels that are numbers": ("text,label\nx,1\ny,-1\nz,007\n", [("x", "1", 2), ("y", "-1", 3), ("z", "007", 4)]),
    "line separators that are none of a file": ("text,label\nx\u2028y\x0bz,a\n", [("x\u2028y\x0bz", "a", 2)]),
    "pairs": ("text_a,text_b,label\nx,y,a\n", [("x", "y", "a", 2)]),
    "two other columns twice": ("text,,label,\nx,1,a,2\n", [("x", "a", 2)]),
}


@pytest.mark.parametrize(("content", "expected"), GOOD.values(), ids=GOOD)
def test_a_file_is_read_as_it_is_meant(file, content, expected):
    path = file(content)
    assert rows(path) == expected
    check_texts_head(path, split="train", text_format=USUAL)


BAD = {
    "an empty file": ("", "{path} is empty"),
    "a file of blank lines": ("\n\r\n", "{path} is empty"),
    "a header only": ("text,label\n", "{path} holds no text, only a header"),
    "an empty text": ("text,label\nx,a\n  ,b\n", "{path}, line 3: the text is empty"),
    "an empty text of a pair": ("text_a,text_b,label\nx,,b\n", "{path}, line 2: a text of the pair is empty"),
    "an empty label": ("text,label\nx,a\ny, \n", "{path}, line 3: the label is empty"),
    "too few fields": ("text,label\nx,a\ny\n", "{path}, line 3: 1 field, the header has 2 (text, label)"),
    "too many fields": (
        "text,label\n\nx, y,a\n",
        "{path}, line 3: 3 fields, the header has 2 (text, label); a field that holds ',' must be in double quotes",
    ),
    "a label column of another name": (
        "text,labl\nx,a\n",
        "{path}, line 1: no column 'label' (data.label_column), the columns are 'text', 'labl': did you mean "
        "data.label_column=labl?",
    ),
    "a text column in capitals": (
        "Text,label\nx,a\n",
        "{path}, line 1: no column 'text' (data.text_column), nor 'text_a', 'text_b' (data.pair_columns), the columns "
        "are 'Text', 'label': did you mean data.text_column=Text?",
    ),
    "the only column that it can be": (
        "label,sentence\nx,a\n",
        "the columns are 'label', 'sentence': did you mean data.text_column=sentence?",
    ),
    "no header": (
        "I like it,good\nI do not,bad\n",
        "the columns are 'I like it', 'good'; and no column 'label' (data.label_column) (the first line must name the "
        "columns)",
    ),
    "half a pair": (
        "text_a,text_c,label\nx,y,a\n",
        "{path}, line 1: no column 'text_b' (data.pair_columns), the columns are 'text_a', 'text_c', 'label'",
    ),
    "single texts and pairs": (
        "text,text_a,text_b,label\nx,y,z,a\n",
        "{path}, line 1: there are the columns 'text' and 'text_a', 'text_b': empty data.text_column if the pair is "
        "meant, or data.pair_columns if the single text is",
    ),
    "a column twice": ("text,label,text\nx,a,y\n", "{path}, line 1: the column 'text' is there 2 times"),
    "several labels where one is allowed": (
        "text,labels\nx,a\n",
        "did you mean data.label_column=labels?, or classification.multi_label=true, which also reads 'labels'",
    ),
    "a quote that never ends": (
        'text,label\nx,a\n"y,b\nz,c\n',
        "{path}, line 3: field 1 begins with a quote ('\"y,b') and never ends: its closing quote is missing",
    ),
    "a quote that never ends, after a line break in its row": (
        'label,text\na,x\n"b\nc","y\n\nz\n',
        "{path}, line 4: field 2 begins with a quote ('\"y') and never ends",
    ),
    "a quote that another row seems to end": (
        'text,label\n"x,a\ny,b\n"z",c\n',
        "{path}, line 2: field 1 begins with a quote ('\"x,a'), and the next quote, in line 4, is not the end",
    ),
    "quotes inside quotes": (
        'text,label\n"He said "no".",a\n',
        '{path}, line 2: field 1 begins with a quote (\'"He said "no".",a\'), and the next quote, in line 2, is not '
        "the end of the field: a quote that belongs to the text is written twice",
    ),
    "a carriage return alone": ("text,label\rx,a\ry,b\n", "{path}, line 1: a carriage return alone"),
    "a NUL byte": ("text,label\nx,a\ny\0,b\n", "{path}, line 3: a NUL byte: this is not UTF-8 text"),
    "not UTF-8": (
        "text,label\nx,a\nZürich,b\n".encode("latin-1"),
        "{path}, line 3: invalid UTF-8 (byte 0xfc at byte 2 of the line)",
    ),
    "not UTF-8 in the second line of a row": (
        'text,label\n"x\nZürich",b\n'.encode("latin-1"),
        "{path}, line 3: invalid UTF-8",
    ),
    "a label in two lines": ('text,label\nx,"a\nb"\n', "{path}, line 2: the label 'a\\nb' holds a line break"),
    "a text as label": (f"text,label\nx,{'word ' * 50}\n", "{path}, line 2: a label of 249 characters ('word"),
    "a text out of scope": (
        "text,label\nx,a\ny,out_of_scope\n",
        "{path}, line 3: the label is that of texts out of scope (classification.out_of_scope_label), which only",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_fault_is_named_with_its_place_before_tensorflow_as_it_is_after(file, content, message):
    path = file(content)
    with pytest.raises(InputError) as error:
        read(path)
    assert message.format(path=path) in str(error.value)
    with pytest.raises(InputError) as early:
        check_texts_head(path, split="train", text_format=USUAL)
    assert str(early.value) == str(error.value)


@pytest.mark.parametrize(
    ("name", "delimiter", "said"),
    [
        ("a.csv", ",", ""),
        ("a.csv", ";", "its first line has semicolons and no commas, so semicolons part its fields"),
        ("a.csv", "\t", "its first line has tabs and no commas, so tabs part its fields"),
        ("a.tsv", "\t", ""),
        ("a.tsv", ",", "its first line has commas and no tabs, so commas part its fields"),
    ],
)
def test_what_parts_fields_is_recognised_and_said(file, name, delimiter, said):
    lines = [["text", "label"], ["a, b; c\td", "x"], ["e", "y"]]
    path = file("".join(f'"{text}"{delimiter}{label}\n' for text, label in lines), name)
    corpus = open_texts(path, split="train", text_format=USUAL)
    assert [(*text.texts, *text.labels) for text in corpus.examples()] == [("a, b; c\td", "x"), ("e", "y")]
    assert corpus.notes == ((f"{path}: {said}",) if said else ())


def test_a_compressed_file_is_read(file):
    assert rows(file(gzip.compress(b"text\tlabel\nx\ta\n"), "corpus.TSV.gz")) == [("x", "a", 2)]


def test_five_megabytes_of_text_in_one_field_are_read(file):
    text = 'wörter, "und" Zeilen\n' * 250_000
    path = file(f'text,label\n"{text.replace(chr(34), 2 * chr(34))}",a\ny,b\n')
    first, second = read(path)
    assert first.texts == (text,) and second.line == 250_003
    check_texts_head(path, split="train", text_format=USUAL)


def test_a_quote_without_end_is_noticed_before_a_long_file_is_in_memory(file):
    path = file(b'text,label\nx,a\n"y,b\n' + b"z z z z z z z z z z z z z z z z z z z z z,c\n" * 400_000)
    with pytest.raises(InputError, match=r'line 3: field 1 begins with a quote \(\'"y,b\'\) and does not end within'):
        read(path)


def test_a_row_that_the_beginning_of_a_file_cuts_is_no_fault(file):
    path = file('text,label\nx,a\n"' + "word\n" * HEAD_BYTES + '",b\n')
    check_texts_head(path, split="train", text_format=USUAL)
    assert len(read(path)) == 2


def test_texts_out_of_scope_are_marked_where_they_are_allowed(file):
    path = file("text,label\nx,a\ny,out_of_scope\n")
    for split in ("valid", "test"):
        known = open_texts(path, split=split, text_format=USUAL, labels=["a", "b"])
        assert [(text.labels, text.out_of_scope) for text in known.examples()] == [(("a",), False), ((), True)]
    learnt = TextFormat(out_of_scope_label="")
    assert [text.labels for text in read(path, learnt)] == [("a",), ("out_of_scope",)]


def test_several_labels_are_sorted_and_each_is_there_once(file):
    path = file("text,labels\nx,b | a|b\ny,\nz,c\n")
    assert [text.labels for text in read(path, SEVERAL)] == [("a", "b"), (), ("c",)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [("a||b", "line 2: the label is empty"), ("a|out_of_scope", "line 2: a text out of scope has no other label")],
)
def test_bad_sets_of_labels_are_named(file, labels, message):
    path = file(f"text,label\nx,{labels}\n")
    with pytest.raises(InputError, match=message):
        list(open_texts(path, split="test", text_format=SEVERAL).examples())


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("Sprot", "line 3: unknown label 'Sprot', did you mean 'sport'? the labels are 'news', 'sport'"),
        ("x", "line 3: unknown label 'x'; the labels are 'news', 'sport'"),
    ],
)
def test_a_label_that_the_training_corpus_lacks_is_named_with_the_nearest(file, label, message):
    path = file(f"text,label\na,news\nb,{label}\n")
    with pytest.raises(InputError) as error:
        read(path, labels=["news", "sport"])
    assert f"{path}, {message}" == str(error.value)


def test_texts_without_labels_need_no_column_and_their_labels_are_not_read(file):
    assert rows(file("text\nx\ny z\n"), labelled=False) == [("x", 2), ("y z", 3)]
    assert rows(file("text,label\nx,\ny,b\n"), labelled=False) == [("x", 2), ("y", 3)]


def test_pairs_are_read_from_columns_of_other_names(file):
    text_format = TextFormat(text_column="", pair_columns=("question", "text"), label_column="y")
    assert rows(file("y,text,question\na,It rains.,Does it rain?\n"), text_format) == [
        ("Does it rain?", "It rains.", "a", 2)
    ]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\ufeff"), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(cells, min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_what_pythons_csv_writer_writes_is_read_back(tmp_path_factory, texts, delimiter):
    path = tmp_path_factory.mktemp("csv") / "corpus.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([("text", "label"), *((text, "a") for text in texts)])
    assert [text.texts for text in read(str(path))] == [(text,) for text in texts]


def test_a_file_in_utf_16_is_named_as_such(tmp_path):
    for number, encoding in enumerate(("utf-16", "utf-16-be", "utf-16-le")):
        path = tmp_path / f"{number}.csv"
        path.write_bytes("text,label\nIt broke.,bad\n".encode(encoding))
        with pytest.raises(InputError, match="it looks like UTF-16, as Excel and Windows write it: save it as UTF-8"):
            check_texts_head(str(path), split="train", text_format=TextFormat())


def test_all_columns_of_other_names_are_told_at_once(tmp_path):
    path = tmp_path / "upper.csv"
    path.write_text("Text,Label\nIt broke.,bad\n")
    with pytest.raises(InputError, match=r"data.text_column=Text\?; and no column 'label' .*data.label_column=Label\?"):
        check_texts_head(str(path), split="train", text_format=TextFormat())
