"""CoNLL column files."""

import gzip
import tracemalloc

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from app.config import DataConfig, InputError
from app.data.sentence import Sentence
from app.tasks.tagging.conll import read_conll, write_conll
from app.tasks.tagging.corpus import open_corpus, summarize

ONE = Sentence(("EU", "rejects"), ("B-ORG", "O"), 0)


@pytest.fixture
def file(tmp_path):
    def write(content, name="corpus.conll"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        "EU B-ORG\nrejects O\n",
        "EU B-ORG\nrejects O",
        "EU\tB-ORG\nrejects\tO\n\n\n\n",
        "EU NNP B-ORG\nrejects VBZ O\n",
        "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n",
        "EU  \t B-ORG \t\nrejects O   \n \t \n",
        "EU B-ORG\r\nrejects O\r\n\r\n",
        "\ufeffEU B-ORG\nrejects O\n",
        "\ufeff-DOCSTART- -X- O O\n\nEU B-ORG\nrejects O\n",
        "-DOCSTART-\nEU B-ORG\nrejects O\n-DOCSTART-\n",
        "-DOCSTART- -X- -X- O\n\n-DOCSTART- -X- -X- O\n\nEU a b B-ORG\nrejects a b O\n",
        "# one line about the file\n\nEU B-ORG\nrejects O\n",
        "-DOCSTART- O\n# genre = news\n\nEU B-ORG\n# inside, with its own number of columns\nrejects O\n",
        "#\nEU B-ORG\nrejects O\n",
        "# comment\nEU B-ORG\nrejects O\n",
        "EU B-ORG\n\ufeffrejects O\n",
        "# genre = news\n\ufeff\nEU B-ORG\nrejects O\n",
        "# id 5239d808-f300\tdomain=en\nEU _ _ B-ORG\nrejects _ _ O\n",
    ],
)
def test_every_layout_reads_the_same_sentence(file, content):
    assert list(read_conll(file(content))) == [ONE]


GERMEVAL = (
    "#\thttp://de.wikipedia.org/x [2009-10-17]\n1\tAufgrund\tO\tO\n2\tder\tO\tO\n3\tUSA\tB-LOC\tO\n\n"
    "#\tn-tv.de vom 26.02.2005 [2005-02-26] \n1\tDer\tB-ORG\tO\n2\tBerliner\tI-ORG\tB-LOCderiv\n"
)
EMPTY = "\t_" * 7
CONLL_U = (
    "# newdoc id = a\n# sent_id = 1\n# text = Adas 10 000 . O\n"
    f"1-2\tAdas{EMPTY}\t_\n1\tAda{EMPTY}\tB-PER\n2\ts{EMPTY}\tO\n"
    f"3\t10 000\t10 000\tNUM\tNumForm=Digit|X=Y\t_\t_\t_\t_\tO\n3.1\tgone{EMPTY}\t_\n\n"
    f"# sent_id = 2\n1\tRome{EMPTY}\tB-LOC\n\n# newdoc\n1\tOslo{EMPTY}\tB-LOC\n"
)


@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        (GERMEVAL, {"tag_column": 3}, [("Aufgrund der USA", "O O B-LOC", 0), ("Der Berliner", "B-ORG I-ORG", 1)]),
        (GERMEVAL, {"tag_column": 4}, [("Aufgrund der USA", "O O O", 0), ("Der Berliner", "O B-LOCderiv", 1)]),
        (
            CONLL_U,
            {},
            [("Ada s 10\u00a0000", "B-PER O O", 0), ("Rome", "B-LOC", 0), ("Oslo", "B-LOC", 1)],
        ),
        ("1\tAda\tB-PER\t-\tme\n2\tmet\tO\t-\tme\n3\tBob\tB-PER\t-\tme\n", {}, [("Ada met Bob", "B-PER O B-PER", 0)]),
        ("0 a O\n1 b O\n2 c B-X\n\n0 d O\n", {}, [("a b c", "O O B-X", 0), ("d", "O", 1)]),
        ("1 a O\n2 b O\n3 c B-X\n\n4 d O\n", {}, [("a b c", "O O B-X", 0), ("d", "O", 1)]),
        ("1 a O\n\n1 b B-X\n\n1 c O\n", {}, [("a", "O", 0), ("b", "B-X", 1), ("c", "O", 2)]),
        ("1 O\n2 O\n3 B-X\n", {"word_column": 1}, [("1 2 3", "O O B-X", 0)]),
        ("1 O\n3 O\n5 B-X\n", {}, [("1 3 5", "O O B-X", 0)]),
        ("B-X Ada\nO met\n", {"word_column": 2, "tag_column": 1}, [("Ada met", "B-X O", 0)]),
        ("# a comment\na\tb c\td\te\tB-X\tf\n", {"word_column": 2, "tag_column": 5}, [("b\u00a0c", "B-X", 0)]),
    ],
)  # fmt: skip
def test_columns_are_found_or_chosen(file, content, columns, expected):
    found = list(read_conll(file(content), **columns))
    assert [(" ".join(each.words), " ".join(each.tags), each.document) for each in found] == expected


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (GERMEVAL, {}, r"several columns hold tags \(3 and 4\).*data\.tag_column=3"),
        ("1 O\n2 B-X\n3 O\n", {}, "column 1 only counts.*no column of words.*data.word_column=1"),
        (CONLL_U.replace("B-", "").replace("\tO\n", "\t_\n"), {}, "none of its 10 columns holds tags.*data.tag_column"),
        (
            "1 a O\n2 b O\n3 c B-X\n\n" * 9 + "d e O\n",
            {},
            "line 37: column 1 counts the words .*received 'd'.*data.word_column=1",
        ),
        ("1\ta\tO\n2\t\tO\n3\tc\tB-X\n", {}, "line 2: column 2 must hold a word"),
        ("a b O\n", {"tag_column": 4}, "line 1: wrong number of columns, received 3, data.tag_column is 4"),
        ("a b O\n", {"word_column": 5}, "line 1: wrong number of columns, received 3, data.word_column is 5"),
        ("a b c d e O\n", {}, "received 6, allowed are 2 to 4.*data.word_column and data.tag_column"),
        ("Ada,B-PER\n", {}, "received 1, .*not commas"),
        ("B-PER Ada\n", {}, r"unknown tag 'Ada'.*column 1 has one \(data.tag_column=1"),
    ],
)
def test_columns_that_cannot_be_told_apart_are_refused_with_what_to_do(file, content, columns, message):
    path = file(content)
    with pytest.raises(InputError, match=message) as error:
        list(read_conll(path, **columns))
    assert str(error.value).startswith(str(path))


def test_numbered_words_are_recognised_by_every_way_to_open_a_corpus(file):
    path = str(file(CONLL_U))
    summary = summarize(open_corpus(path, split="train", config=DataConfig()))
    assert (summary.types, summary.words, summary.documents) == (("LOC", "PER"), 5, 2)
    path = str(file(GERMEVAL))
    summary = summarize(open_corpus(path, split="train", config=DataConfig(tag_column=4)))
    assert summary.types == ("LOCderiv",)


def test_compressed_files_are_read(file):
    assert list(read_conll(file(gzip.compress(b"EU B-ORG\nrejects O\n"), "corpus.conll.gz"))) == [ONE]


def test_a_number_sign_with_a_tag_is_a_word(file):
    sentence = next(read_conll(file("# O\n#hashtag B-PER\n# O\n")))
    assert sentence.words == ("#", "#hashtag", "#")


def test_document_marks_part_documents(file):
    content = "a O\n\nb O\n\n-DOCSTART- O\n\nc O\n\nd O\n-DOCSTART- O\n-DOCSTART- O\ne O\n-DOCSTART- O\n"
    assert [sentence.document for sentence in read_conll(file(content))] == [0, 0, 1, 1, 2]


def test_without_document_marks_every_sentence_is_a_document(file):
    assert [sentence.document for sentence in read_conll(file("a O\n\nb O\n\nc O\n"))] == [0, 1, 2]


def test_only_spaces_and_tabs_part_columns(file):
    words = ("10\u00a0000", "a\u2028b", "nul\x00", "\u200b", "\x85", "\x0c")
    sentence = next(read_conll(file("".join(f"{word} O\n" for word in words))))
    assert sentence.words == words


@pytest.mark.parametrize(
    ("content", "scheme"),
    [
        ("a I-PER\nb I-PER\nc B-PER\n", "iob1"),
        ("a B-PER\nb I-PER\nc B-PER\n", "iob2"),
        ("a B-PER\nb E-PER\nc S-PER\n", "iobes"),
    ],
)
@pytest.mark.parametrize("given_scheme", [True, False])
def test_every_scheme_is_read_as_iob2(file, content, scheme, given_scheme):
    repairs = []
    sentences = read_conll(file(content), scheme=scheme if given_scheme else "auto", on_repair=repairs.append)
    assert [sentence.tags for sentence in sentences] == [("B-PER", "I-PER", "B-PER")]
    assert repairs == []


def test_inside_tag_after_outside_is_repaired_and_counted(file):
    repairs = []
    sentences = list(read_conll(file("a B-PER\n\nb O\nc I-PER\nd I-ORG\n"), on_repair=repairs.append))
    assert sentences[1].tags == ("O", "B-PER", "B-ORG")
    assert repairs == [2]


def test_inside_tag_after_outside_fails_when_strict(file):
    path = file("a B-PER\n\nb O\nc I-PER\n")
    with pytest.raises(InputError) as error:
        list(read_conll(path, strict=True))
    assert str(error.value) == (
        f"{path}, line 4: I-PER after O must be B-PER in IOB2; data.strict=false repairs and counts such tags"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: it holds no sentence"),
        ("\n\n-DOCSTART- O\n\n# note\n", "is empty: it holds no sentence"),
        ("a O\nb\n", "line 2: wrong number of columns, received 1, allowed are 2 to 4"),
        ("a b c d O\n", "line 1: wrong number of columns, received 5"),
        ("a O\nb NN O\n", "line 2: wrong number of columns, received 3, the lines before have 2"),
        ("a O\n\nb B-PER X\n", "line 3: wrong number of columns"),
        ("#hashtag\nb O\n", r"line 1: wrong number of columns.*comment begins with '# '"),
        ("a O\n\nb PER\n", "line 3: unknown tag 'PER', allowed: O, B-TYPE"),
        ("a O\n# o\n", "line 2: unknown tag 'o'"),
        (b"a O\n\nb\xff O\n", "line 3: invalid UTF-8 .byte 0xff at byte 2"),
        (b"a O\n\xc3", "line 2: invalid UTF-8"),
        ("a O\n".encode("utf-16"), "line 1: invalid UTF-8"),
        ("b O\n\n" + "a O\n" * 10_001, "line 3: the sentence beginning here is longer than 10,000 words"),
        ("a" * 2**20 + " O\n", "line 1: longer than 1,048,576 bytes"),
    ],
)
def test_bad_files_are_named_with_the_line(file, content, message):
    path = file(content)
    with pytest.raises(InputError, match=message) as error:
        list(read_conll(path))
    assert str(error.value).startswith(str(path))


def test_a_tag_outside_the_label_set_is_named_with_its_line(file):
    with pytest.raises(InputError, match="line 2: unknown tag 'B-GPE', the entity types are LOC, PER"):
        list(read_conll(file("a B-PER\nb B-GPE\n"), types=["PER", "LOC"]))


def test_a_prefix_of_another_scheme_is_an_unknown_tag(file):
    with pytest.raises(InputError, match="line 1: unknown tag 'S-PER', allowed: O, B-TYPE, I-TYPE"):
        list(read_conll(file("a S-PER\n"), scheme="iob2"))


def test_missing_files_folders_and_broken_archives_are_named(file, tmp_path):
    for path, message in [
        (tmp_path / "none.conll", "is missing"),
        (tmp_path, "is a folder, not a file"),
        (file(b"EU B-ORG\n", "plain.conll.gz"), "cannot be read"),
        (file(gzip.compress(b"EU B-ORG\n" * 99)[:-9], "cut.conll.gz"), "cannot be read"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            list(read_conll(path))
        assert str(path) in str(error.value)


def test_a_sentence_of_ten_thousand_words_is_read(file):
    assert len(next(read_conll(file("a O\n" * 10_000))).words) == 10_000


def test_memory_does_not_grow_with_the_file(file):
    path = file(("word O\n" * 200 + "\n") * 150)
    tracemalloc.start()
    assert sum(1 for _ in read_conll(path, scheme="iob2")) == 150
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000 < path.stat().st_size


words = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n"), min_size=1, max_size=8
).filter(lambda word: word != "-DOCSTART-" and not word.startswith("\ufeff"))
tagged_words = st.tuples(words, st.sampled_from(["O", "B-PER", "B-LOC"]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(tagged_words, min_size=1, max_size=5)), min_size=1, max_size=6
    ),
    st.sampled_from(["iob1", "iob2", "iobes"]),
)
def test_what_is_written_is_read_back(tmp_path, raw, scheme):
    assume(not all(word.isdigit() for _, row in raw for word, _ in row))  # a column that only counts is asked about
    sentences, document = [], 0
    for begins_document, row in raw:
        document += begins_document and bool(sentences)
        sentences.append(Sentence(*zip(*row, strict=True), document))
    write_conll(tmp_path / "out.conll", sentences, scheme=scheme)
    assert list(read_conll(tmp_path / "out.conll", scheme=scheme)) == sentences
    assert [path.name for path in tmp_path.iterdir()] == ["out.conll"]


@pytest.mark.parametrize(
    ("words", "tags", "message"),
    [
        (("a b",), ("O",), "holds a blank"),
        (("",), ("O",), "is empty"),
        (("-DOCSTART-",), ("O",), "mark that begins a document"),
        (("\ud800",), ("O",), "half of a surrogate pair"),
        (("\ufeffAda",), ("O",), "begins with a byte order mark"),
        (("a",), (), "1 words but 0 tags"),
        ((), (), "0 words"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(tmp_path, words, tags, message):
    with pytest.raises(InputError, match=message):
        write_conll(tmp_path / "out.conll", [Sentence(words, tags, 0)])
    assert not (tmp_path / "out.conll").exists()
