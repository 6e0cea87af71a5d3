"""Running text: every document is read once and in order, however it is cut; what is no text is named."""

import gzip
import json
import os

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config import InputError
from app.tasks.running_text import find_sources, plan_units, read_unit

TEXT = "One line.\nAnother.\n\nA second document.\n"
DOCUMENTS = [["One line.", "Another."], ["A second document."]]


def read_documents(*sources: str, unit_bytes: int = 2**20, **options) -> list[list[str]]:
    return [
        document
        for unit in plan_units(find_sources(sources, **options), unit_bytes=unit_bytes)
        for document in documents_of(unit)
    ]


def documents_of(unit) -> list[list[str]]:
    documents: list[list[str]] = [[]]
    for line in read_unit(unit):
        if line is None:
            documents.append([])
        else:
            documents[-1].append(line)
    return [document for document in documents if document]


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes) -> str:
        data = content.encode("utf-8") if isinstance(content, str) else content
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip(),
        TEXT.replace("\n", "\r\n"),
        "\n\n  \n" + TEXT.replace("\n\n", "\n \t\n\n\n") + "\n\n",
        "\ufeff" + TEXT,
        TEXT.replace("\n\n", "\n\u00a0\n"),
        TEXT.replace("Another.", "  Another. "),
    ],
)
@pytest.mark.parametrize("name", ["text.txt", "text.gz"])
def test_a_blank_line_ends_a_document(write, name, text):
    assert read_documents(write(name, text)) == DOCUMENTS


def test_globs_lists_and_commas_name_files_in_order_and_each_once(write, tmp_path):
    for name in ("b.txt", "a.txt", "c.txt.gz"):
        write(name, name)
    write("d.text", "d")
    every = str(tmp_path / "*.t*")
    assert read_documents(every) == [["a.txt"], ["b.txt"], ["c.txt.gz"], ["d"]]
    both = find_sources(f"{tmp_path}/d.text, {tmp_path}/b.txt")
    assert [source.name for source in both] == ["d.text", "b.txt"]
    assert [source.name for source in find_sources([f"{tmp_path}/b.txt", f"{tmp_path}/b.txt"])] == ["b.txt"]


def test_a_file_ends_a_document(write, tmp_path):
    write("1.txt", "one")
    write("2.txt", "")
    write("3.txt", "three\n")
    assert read_documents(f"{tmp_path}/*.txt") == [["one"], ["three"]]


def test_tagged_corpora_are_read_as_their_words(write):
    conll = "-DOCSTART- O\n\nEU B-ORG\nrejects O\n\nPeter B-PER\n\n-DOCSTART- O\n\nRome B-LOC\n"
    expected = [["EU rejects", "Peter"], ["Rome"]]
    assert read_documents(write("train.conll", conll)) == expected
    assert read_documents(write("train.data", conll), file_format="conll") == expected
    assert read_documents(write("train.txt", "\ufeff" + conll)) == expected
    assert read_documents(write("text.txt", "A line that names -DOCSTART- O\n")) == [["A line that names -DOCSTART- O"]]
    lines = [{"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}, {"tokens": ["Rome"], "tags": ["B-LOC"]}]
    found = read_documents(write("train.jsonl", "".join(json.dumps(line) + "\n" for line in lines)))
    assert [line for document in found for line in document] == ["EU rejects", "Rome"]


def test_a_tfds_corpus_is_one_unit():
    def as_dataset(self, **_):
        rows = [{"tokens": ["EU", "rejects"], "ner": [3, 0]}, {"tokens": ["Peter"], "ner": [1]}]
        spec = {"tokens": tf.TensorSpec([None], tf.string), "ner": tf.TensorSpec([None], tf.int64)}
        return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=spec)

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        sources = find_sources("tfds:conll2003")
        units = plan_units(sources, unit_bytes=10)
        assert [(source.format, source.split) for source in sources] == [("tfds", "train")]
        lines = [line for unit in units for line in read_unit(unit) if line]
    assert len(units) == 1 and lines == ["EU rejects", "Peter"]


line_texts = st.text(st.sampled_from("ab é東"), max_size=12).map(str.strip).filter(bool)
corpora = st.lists(st.lists(line_texts, min_size=1, max_size=5), min_size=1, max_size=12)


@settings(max_examples=60)
@given(corpora, corpora, st.integers(1, 200), st.sampled_from(["\n", "\r\n"]), st.integers(1, 3), st.booleans())
def test_units_of_any_size_hold_every_document_once_and_in_order(
    tmp_path_factory, first, second, unit_bytes, newline, blanks, last_newline
):
    folder = tmp_path_factory.mktemp("units")
    for name, documents in (("1.txt", first), ("2.txt", second)):
        text = (newline * (1 + blanks)).join(newline.join(document) for document in documents)
        (folder / name).write_text(text + newline * last_newline, encoding="utf-8", newline="")
    sources = find_sources(f"{folder}/*.txt")
    units = plan_units(sources, unit_bytes=unit_bytes)
    assert [document for unit in units for document in documents_of(unit)] == first + second
    segments = [segment for unit in units for segment in unit]
    for source in sources:
        own = [segment for segment in segments if segment.source is source]
        assert [own[0].start, *(each.end for each in own)] == [*(each.start for each in own), source.size]


def test_units_are_about_as_large_as_asked_for(write):
    sources = find_sources(write("text.txt", "A line of text in a document.\n\n" * 3000))
    units = plan_units(sources, unit_bytes=4000)
    sizes = [sum(segment.end - segment.start for segment in unit) for unit in units]
    assert sum(sizes) == sources[0].size and all(3900 < size < 4100 for size in sizes[:-1]) and sizes[-1] < 6100


def test_small_files_share_a_unit_and_a_large_document_stays_in_one(write, tmp_path):
    for number in range(10):
        write(f"{number}.txt", "x" * 100)
    assert [len(unit) for unit in plan_units(find_sources(f"{tmp_path}/*.txt"), unit_bytes=350)] == [5, 5]
    large = find_sources(write("large", "x" * 99 + "\n" + "y\n" * 5000))
    assert len(plan_units(large, unit_bytes=350)) == 1


def test_a_changed_file_is_another_source_and_a_moved_one_is_not(tmp_path):
    def facts(folder, text):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "a.txt").write_text(text)
        (source,) = find_sources(f"{tmp_path}/{folder}/*")
        return source.name, source.size, source.head

    assert facts("one", "text a") == facts("two", "text a") != facts("one", "text b")


LONG = "the corpus has no borders " * 40_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\n\nelf\x7fELF\x00\x01\n", "line 3: a NUL byte: this is a binary file, not text"),
        ("fine\nÜber\n".encode("latin-1"), r"line 2: not UTF-8 text (byte 0xdc at byte 1 of the line)"),
        (b"fine\ncut \xe6\x9d", r"line 2: not UTF-8 text (byte 0xe6 at byte 5 of the line)"),
        ("fine\n" + LONG, "line 2: longer than 1,000,000 characters"),
        ("fine\n" + "東" * 1_000_001, "line 2: longer than 1,000,000 characters"),
        ("fine\n" + "東" * 5_000_000, "line 2: longer than 1,000,000 characters"),
    ],
)
@pytest.mark.parametrize("name", ["bad.txt", "bad.txt.gz"])
def test_what_is_no_text_is_named_with_file_and_line_before_anything_is_made(write, name, content, message):
    path = write(name, content)
    with pytest.raises(InputError) as error:
        find_sources(path)
    assert str(error.value).startswith(f"{path}, {message}")


@pytest.mark.parametrize("unit_bytes", [1000, 2**20])
def test_a_fault_deep_in_a_file_is_named_with_the_line_of_the_file(write, unit_bytes):
    path = write("deep.txt", b"A line of text.\n\n" * 5000 + b"caf\xe9\n" + b"\nMore.\n" * 1000)
    with pytest.raises(InputError, match="deep.txt, line 10001: not UTF-8 text"):
        read_documents(path, unit_bytes=unit_bytes)


def test_lines_of_a_million_characters_are_text(write):
    long = "東" * 1_000_000
    assert read_documents(write("text.txt", f"a\n{long}\n\nb")) == [["a", long], ["b"]]


def test_a_truncated_or_mislabelled_gzip_file_is_named(write, tmp_path):
    whole = gzip.compress(b"".join(b"%d\n" % (number * 7919 % 10007) for number in range(100_000)))
    (tmp_path / "cut.gz").write_bytes(whole[:-1000])
    with pytest.raises(InputError, match="cut.gz cannot be read after line [1-9][0-9]+: "):
        read_documents(f"{tmp_path}/cut.gz")
    (tmp_path / "plain.gz").write_text("text")
    with pytest.raises(InputError, match="plain.gz cannot be read after line 0: Not a gzipped file"):
        find_sources(f"{tmp_path}/plain.gz")


def test_a_file_that_goes_away_is_named(write, tmp_path):
    units = plan_units(find_sources(write("gone.txt", "a\n\n" * 99)), unit_bytes=100)
    (tmp_path / "gone.txt").unlink()
    for unit in (units[0], units[-1]):
        with pytest.raises(InputError, match="gone.txt cannot be read"):
            list(read_unit(unit))


def test_a_file_that_cannot_be_read_is_named(write, tmp_path):
    (tmp_path / "unreadable.txt").symlink_to("/proc/self/mem")  # reading it fails whoever the user is
    with pytest.raises(InputError, match="unreadable.txt cannot be read: "):
        find_sources(f"{tmp_path}/*.txt")
    sources = find_sources(write("gone.txt", "a\n\n" * 99))
    (tmp_path / "gone.txt").unlink()
    with pytest.raises(InputError, match="gone.txt cannot be read: "):
        plan_units(sources, unit_bytes=100)


def test_patterns_without_text_are_named(write, tmp_path):
    write("empty.txt", "")
    for source, message in [
        (f"{tmp_path}/*.md", f"no file matches {tmp_path}/*.md"),
        (f"{tmp_path}/empty.txt,{tmp_path}/no.txt", f"no file matches {tmp_path}/no.txt"),
        (f"{tmp_path}/*.txt", f"the corpus is empty: {tmp_path}/empty.txt"),
        (str(tmp_path), f"{tmp_path} is a folder: name its files, for example {tmp_path}/*.txt"),
        (" , ", "the pretraining corpus is not named"),
    ]:
        with pytest.raises(InputError) as error:
            find_sources(source)
        assert str(error.value).startswith(message)
    with pytest.raises(InputError, match="one of auto, text, conll, jsonl, received 'xml'"):
        find_sources(f"{tmp_path}/*.txt", file_format="xml")


@pytest.mark.parametrize(
    "name", ["a[1].txt", "*", "a?", "a\\b", "x,y", "a b ", "q'\"", os.fsdecode(b"\xff"), "line\nend", "tail.txt.gz[0]"]
)
def test_a_file_that_exists_under_the_very_name_is_no_glob_and_no_list(write, monkeypatch, tmp_path, name):
    write("a1.txt", "of the pattern")
    path = write(name, TEXT)
    assert read_documents(path) == DOCUMENTS
    monkeypatch.chdir(tmp_path)
    assert read_documents(name) == DOCUMENTS
    assert [source.path for source in find_sources(f"{name},a1.txt")] == [name, "a1.txt"]


@pytest.mark.parametrize("name", ["[ab]", "a*", os.fsdecode(b"\xff[")])
def test_a_glob_may_lie_in_a_folder_whose_name_looks_like_one(write, tmp_path, name):
    for folder in ("a", name):
        (tmp_path / folder).mkdir()
    write("a/no.txt", "of the pattern")
    write(f"{name}/2.txt", "two")
    write(f"{name}/1.conll", "Ada B-PER\n")
    assert read_documents(f"{tmp_path}/{name}/*.txt") == [["two"]]
    assert [source.path for source in find_sources(f"{tmp_path}/{name}/?.*")] == [
        f"{tmp_path}/{name}/1.conll", f"{tmp_path}/{name}/2.txt"
    ]  # fmt: skip
    with pytest.raises(InputError, match="no file matches"):
        find_sources(f"{tmp_path}/{name}/*.md")
