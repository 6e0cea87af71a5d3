"""Running text as sentences to distil on."""

import pytest

from app.config import InputError
from app.tasks.corpora import UNLABELLED, summarize_unlabelled
from app.tasks.running_text import find_sources, read_unlabelled
from app.tasks.tagging.task import TAGGING


def test_lines_become_sentences_of_words_and_blank_lines_part_documents(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Ada met Bob. He left!\n\n\nRome is old.\nIt lasts.\n")
    found = [(" ".join(s.words), s.tags, s.document) for s in read_unlabelled(find_sources(str(path)))]
    assert found == [
        ("Ada met Bob .", (), 0),
        ("He left !", (), 0),
        ("Rome is old .", (), 1),
        ("It lasts .", (), 1),
    ]
    words, text = summarize_unlabelled(TAGGING, find_sources(str(path)))
    assert words == 14 and text[UNLABELLED]["sources"] == [str(path)]


def test_no_more_words_are_read_than_the_limit_says(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one two three.\nfour five.\n")
    sources = find_sources(str(path))
    assert [s.words for s in read_unlabelled(sources, limit_words=5)] == [("one", "two", "three", "."), ("four",)]
    words, text = summarize_unlabelled(TAGGING, sources, limit_words=4)
    assert words == 4
    path.write_text("one two  three.\nsix.\n")  # the words that are read are the same
    assert summarize_unlabelled(TAGGING, sources, limit_words=4) == (words, text)
    assert summarize_unlabelled(TAGGING, sources)[1] != text


def test_text_without_full_stops_and_blank_lines_is_cut_to_what_memory_holds(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(("word " * 1300 + "\n") * 20)
    found = list(read_unlabelled(find_sources(str(path))))
    assert max(len(s.words) for s in found) == 512 and sum(len(s.words) for s in found) == 26_000
    per_document = [sum(len(s.words) for s in found if s.document == d) for d in range(found[-1].document + 1)]
    assert len(per_document) > 1 and max(per_document) < 12_000


@pytest.mark.parametrize("text", ["\n \n", "\u200b\n"])
def test_text_without_a_word_is_bad_input(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"data.unlabelled_path: .*a.txt holds no word"):
        summarize_unlabelled(TAGGING, find_sources(str(path)))
