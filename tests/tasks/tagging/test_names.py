"""Tags to names: what people would mark, in Python and in the graph."""

import random
import re

import numpy as np
import pytest
import tensorflow as tf

from app.tasks.tagging.graph import GraphNames
from app.tasks.tagging.labels import labels_from
from app.tasks.tagging.names import find_names, find_non_name_types, is_in_path, is_non_name
from app.text.characters import character_tables
from app.text.graph_words import TextWords
from app.text.words import split_sentences

LABELS = labels_from(["LOC", "ORG", "PER", "SUM"])
CHANCES = (np.random.default_rng(0).permutation(70_000) / 70_000).astype(np.float32)
NON_NAMES = ("SUM",)  # a type that the training corpus has on sums, dates, mail addresses
# What the model tagged stands in ⟨TYPE:...⟩; beside it the names that are to come out.
TAGGED = [
    ("⟨PER:Ada⟩ met ⟨PER:Omar Haddad⟩ .", ["PER Ada", "PER Omar Haddad"]),
    # signs at the edges
    ("⟨PER:Ada 🎉⟩ is here", ["PER Ada"]),
    ("⟨PER:🎉 Ada 🎉🎉⟩", ["PER Ada"]),
    ("⟨PER:🎉⟩ and ⟨LOC:🇫🇷⟩ and ⟨ORG:👩‍👩‍👧⟩", []),
    ("⟨PER:Ada 👍🏽⟩ ⟨PER:Ben ❤️⟩ ⟨LOC:★ Rome ★⟩", ["PER Ada", "PER Ben", "LOC Rome"]),
    ("⟨PER:Ada 🎉 Ben⟩", ["PER Ada", "PER Ben"]),
    ("⟨PER:\"Ada Byron\"⟩ said", ["PER Ada Byron"]),
    ("⟨PER:“Ada Byron”⟩ said", ["PER Ada Byron"]),
    ("⟨PER:« Ada Byron »⟩ ⟨PER:*Ben*⟩ ⟨PER:_Omar_⟩ ⟨PER:`Cleo`⟩",
     ["PER Ada Byron", "PER Ben", "PER Omar", "PER Cleo"]),
    ("⟨PER:- Ada –⟩ ⟨PER:-- Ben …⟩ ⟨PER:Omar,⟩ ⟨PER:Cleo :⟩ ⟨PER:> Dan⟩",
     ["PER Ada", "PER Ben", "PER Omar", "PER Cleo", "PER Dan"]),
    ("in ⟨LOC:Rome.⟩", ["LOC Rome"]),
    ("⟨ORG:Acme ® ™⟩ and ⟨ORG:Acme® Corp⟩", ["ORG Acme", "ORG Acme® Corp"]),
    ("⟨ORG:... ?!⟩ ⟨PER:→⟩ ⟨PER:\"⟩ ⟨LOC:( )⟩", []),
    # the dots of abbreviations
    ("by ⟨ORG:Jones Inc.⟩", ["ORG Jones Inc."]),
    ("by ⟨ORG:Jones Inc.⟩\n\nNext", ["ORG Jones Inc."]),
    ("by ⟨ORG:JONES INC.⟩ and ⟨ORG:jones ltd.⟩ and ⟨ORG:Acme Corp.⟩", ["ORG JONES INC.", "ORG jones ltd.",
                                                                      "ORG Acme Corp."]),
    ("in the ⟨LOC:U.S.⟩", ["LOC U.S."]),
    ("in ⟨LOC:Washington D.C.⟩ or ⟨LOC:St. Louis.⟩", ["LOC Washington D.C.", "LOC St. Louis"]),
    ("⟨PER:Martin Luther King Jr.⟩", ["PER Martin Luther King Jr."]),
    ("⟨PER:Sammy Davis Jr.⟩, he said. ⟨PER:J. K. Rowling.⟩", ["PER Sammy Davis Jr.", "PER J. K. Rowling"]),
    ("Is it ⟨ORG:Jones Inc.⟩?", ["ORG Jones Inc."]),
    # inside a name everything stays
    ("⟨PER:Dwayne \"The Rock\" Johnson⟩ ⟨ORG:AT&T⟩ ⟨ORG:Ben & Jerry's⟩ ⟨PER:Jean-Luc O'Brien⟩",
     ["PER Dwayne \"The Rock\" Johnson", "ORG AT&T", "ORG Ben & Jerry's", "PER Jean-Luc O'Brien"]),
    # brackets
    ("⟨LOC:(Rome)⟩", ["LOC Rome"]),
    ("⟨LOC:Springfield (Illinois)⟩ .", ["LOC Springfield (Illinois)"]),
    ("⟨LOC:Springfield (Illinois⟩) .", ["LOC Springfield (Illinois)"]),
    ("⟨LOC:Springfield (⟩ Illinois )", ["LOC Springfield"]),
    ("⟨LOC:Springfield (Illinois⟩ and more", ["LOC Springfield", "LOC Illinois"]),
    ("⟨LOC:Springfield (Illinois⟩, ⟨LOC:USA)⟩", ["LOC Springfield", "LOC Illinois", "LOC USA"]),
    ("⟨ORG:(Acme) Corp⟩", ["ORG (Acme) Corp"]),
    ("(⟨ORG:Acme) Corp⟩", ["ORG (Acme) Corp"]),
    ("⟨ORG:Acme) Corp⟩", ["ORG Acme", "ORG Corp"]),
    ("⟨ORG:Acme [UK] Corp.⟩", ["ORG Acme [UK] Corp."]),
    ("⟨ORG:((Acme) Corp)⟩", ["ORG (Acme) Corp"]),
    ("⟨PER:Ada :) Ben⟩", ["PER Ada", "PER Ben"]),
    ("⟨ORG:Acme ()⟩", ["ORG Acme"]),
    ("(\n\n⟨ORG:Acme) Corp⟩", ["ORG Acme", "ORG Corp"]),
    # no names
    ("⟨PER:ada.byron@example.co.uk⟩ ⟨ORG:https://example.org/a?b=c⟩ ⟨ORG:www.example.org⟩ ⟨ORG:example.com/ada⟩", []),
    ("⟨PER:Ada Byron ada@example.org⟩ ⟨PER:<ben@example.org> Ben⟩", ["PER Ada Byron", "PER Ben"]),
    ("⟨PER:@ann_b⟩ on ⟨ORG:#python⟩, ⟨PER:Ann @ann_b⟩", ["PER Ann"]),
    ("⟨ORG:Amazon.com⟩ and ⟨LOC:Boeing 747⟩ and ⟨ORG:3M⟩, ⟨ORG:7-Eleven⟩, ⟨ORG:76ers⟩, ⟨LOC:A320⟩, ⟨ORG:1860 Munich⟩",
     ["ORG Amazon.com", "LOC Boeing 747", "ORG 3M", "ORG 7-Eleven", "ORG 76ers", "LOC A320", "ORG 1860 Munich"]),
    ("⟨LOC:12⟩ ⟨LOC:3.5 %⟩ ⟨LOC:$ 40⟩ ⟨LOC:US$ 1,250.50⟩ ⟨LOC:(3-1)⟩ ⟨LOC:½⟩ ⟨LOC:٣⟩", []),
    ("⟨LOC:10th⟩ ⟨LOC:1980s⟩ ⟨LOC:€⟩ ⟨LOC:+44 171⟩ ⟨LOC:20°⟩", []),
    ("⟨LOC:2020-05-12⟩ ⟨LOC:12/5/2020⟩ ⟨LOC:5 May 2020⟩ ⟨LOC:Monday, May 5th⟩ ⟨LOC:Sept. 11⟩ ⟨LOC:the 1980s⟩", []),
    ("⟨LOC:10:30⟩ ⟨LOC:5 p.m.⟩ ⟨LOC:5pm⟩ ⟨LOC:10h30⟩ ⟨LOC:12:00 UTC⟩ ⟨LOC:2020-05-12T10:30:00Z⟩", []),
    ("⟨PER:May⟩ and ⟨PER:April⟩ and ⟨PER:Theresa May⟩", ["PER May", "PER April", "PER Theresa May"]),
    ("On ⟨LOC:Mon⟩ , ⟨LOC:Wednesday⟩ and ⟨LOC:Fri.⟩ ⟨PER:John⟩ read the ⟨ORG:Sun⟩", ["PER John", "ORG Sun"]),
    ("⟨ORG:Black Friday⟩ is on ⟨ORG:Friday⟩", ["ORG Black Friday"]),
    ("⟨ORG:8284ac4⟩ ⟨ORG:3f2a9c81d0⟩ ⟨ORG:550e8400-e29b-41d4-a716-446655440000⟩ but ⟨ORG:Decade⟩", ["ORG Decade"]),
    (r"⟨LOC:C⟩:\⟨LOC:Users⟩\⟨PER:Ada⟩\notes.txt /usr/⟨LOC:local⟩/bin ~/⟨PER:Ada⟩ ⟨PER:Haddad_offer⟩.pdf", []),
    ("see (docs/⟨PER:Ada⟩.docx), \"../⟨PER:Ben⟩/x\" or \\\\host\\⟨ORG:Acme⟩", []),
    ("⟨ORG:AC/DC⟩, ⟨LOC:Rome⟩/⟨LOC:Oslo⟩, and/or ⟨PER:Ada⟩, ⟨ORG:Node.js⟩, ⟨LOC:London⟩.The end of /⟨PER:Ben⟩",
     ["ORG AC/DC", "LOC Rome", "LOC Oslo", "PER Ada", "ORG Node.js", "LOC London", "PER Ben"]),
    ("/" + "x" * 300 + "/⟨PER:Ada⟩", ["PER Ada"]),
    # a type that is no name by the training corpus
    ("⟨SUM:$ 40⟩ ⟨SUM:3.5 %⟩, ⟨SUM:5 May 2020.⟩ ⟨SUM:ada@example.org⟩ ⟨SUM:@ann⟩ ⟨SUM:8284ac4⟩ ⟨SUM::)⟩ ⟨SUM:🎉⟩",
     ["SUM $ 40", "SUM 3.5 %", "SUM 5 May 2020", "SUM ada@example.org", "SUM @ann", "SUM 8284ac4", "SUM :)", "SUM 🎉"]),
    ("⟨SUM:40 🎉⟩ ⟨SUM:(40)⟩ ~/x/⟨SUM:40⟩", ["SUM 40", "SUM 40", "SUM 40"]),
    # sentences
    ("⟨PER:Ben\nOmar Haddad⟩", ["PER Ben", "PER Omar Haddad"]),
    ("⟨LOC:Rome. Oslo⟩", ["LOC Rome", "LOC Oslo"]),
    ("", []),
    ("no name at all", []),
]  # fmt: skip


def parse(marked):
    """The text, and (start, end, type) of what is marked."""
    text, spans, at = "", [], 0
    for match in re.finditer(r"(?s)⟨([A-Z]+):(.*?)⟩", marked):
        text += marked[at : match.start()]
        spans.append((len(text), len(text) + len(match[2]), match[1]))
        text += match[2]
        at = match.end()
    return text + marked[at:], spans


def tags_of(text, spans):
    """A tag for each word, sentence by sentence; an entity that goes on in the next sentence goes on with I-."""
    sentences = split_sentences(text)
    tags, open_span = [], None
    for words in sentences:
        tags.append([])
        for word in words:
            found = next((s for s in spans if s[0] <= word.start and word.end <= s[1]), None)
            tags[-1].append("O" if found is None else f"{'I' if found is open_span else 'B'}-{found[2]}")
            open_span = found
    return sentences, tags


def names_in_python(text, sentences, tags):
    found, before = [], 0
    for words, own in zip(sentences, tags, strict=True):
        for name in find_names([text[a:b] for a, b in words], own, NON_NAMES):
            start, end = words[name.first].start, words[name.last - 1].end
            if name.label in NON_NAMES or not is_in_path(text, start, end):
                sure = CHANCES[before + name.sure_first : before + name.sure_last]
                found.append((name.label, start, end, sure.min()))
        before += len(words)
    return found


def names_in_graph(texts, sentences, tags):
    """All texts at once; the chances of the words of each are CHANCES."""
    codes = np.array([ord(character) for text in texts for character in text], np.int32)
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    flat = [(number, word) for number, each in enumerate(sentences) for words in each for word in words]
    owners = np.array([number for number, _ in flat], np.int32)
    starts = np.array([offsets[number] + word.start for number, word in flat], np.int32)
    ends = np.array([offsets[number] + word.end for number, word in flat], np.int32)
    begins = np.array([at == 0 for each in sentences for words in each for at in range(len(words))], bool)
    chances = [chance for each in sentences for chance in CHANCES[: sum(map(len, each))]]
    ids = np.array([LABELS.index(tag) for each in tags for own in each for tag in own], np.int32)
    types = character_tables().type_of[codes].astype(np.int32)
    words = TextWords(*map(tf.constant, (codes, types, offsets, starts, ends, owners)))
    spelled = tf.constant([texts[number][a:b] for number, (a, b) in flat], tf.string)
    found = GraphNames(LABELS, NON_NAMES)(
        words, spelled, tf.constant(begins), tf.constant(ids), tf.constant(chances, tf.float32), len(texts)
    )
    found = {name: column.numpy() for name, column in found.items()}
    return [
        [
            (found["label"][row, i].decode(), found["start"][row, i], found["end"][row, i], found["score"][row, i])
            for i in range(count)
        ]
        for row, count in enumerate(found["count"])
    ]


@pytest.mark.parametrize(("marked", "expected"), TAGGED)
def test_names_are_what_people_would_mark(marked, expected):
    text, spans = parse(marked)
    found = names_in_python(text, *tags_of(text, spans))
    assert [f"{label} {text[start:end]}" for label, start, end, _ in found] == expected


def test_the_graph_finds_the_same_names():
    parsed = [parse(marked) for marked, _ in TAGGED]
    tagged = [tags_of(text, spans) for text, spans in parsed]
    texts = [text for text, _ in parsed]
    found = names_in_graph(texts, *zip(*tagged, strict=True))
    for text, own, names in zip(texts, tagged, found, strict=True):
        assert names == names_in_python(text, *own), text
    assert names_in_graph([], [], []) == [] and names_in_graph(["", "x"], [[], []], [[], []]) == [[], []]


BITS = (
    "Ada Byron Rome Inc. U.S. ( ) [ ] ( ) （ ） \" “ ” - … . , : 🎉 👍🏽 🇫🇷 ❤️ 1️⃣ ™ ★ @ann #x a@b.co www.x.org "
    "x.com/y 12 3.5 $ % ° US$ May Monday of 5pm 10th 8284ac4 Decade /usr/bin C:\\x notes.pdf. a\\b東 京 "
    "Ⅷ ٣ é ё ' 's + = ~ \u0301 \u200d"
).split(" ")


def random_tags(rng, sentences):
    """Mostly runs of one type, as models tag."""
    tags = []
    for words in sentences:
        tags.append([])
        for _ in words:
            before = tags[-1][-1] if tags[-1] else "O"
            goes_on = before != "O" and rng.random() < 0.6
            tags[-1].append("I-" + before[2:] if goes_on else rng.choice(["O", *LABELS[1:]]))
    return tags


@pytest.mark.parametrize("seed", range(2))
def test_the_graph_finds_the_same_names_in_any_text_with_any_tags(seed):
    rng = random.Random(seed)
    texts = [
        "".join(rng.choice(BITS) + rng.choice([" ", " ", "", ". ", "\n"]) for _ in range(rng.randrange(20)))
        for _ in range(800)
    ]
    sentences = [split_sentences(text) for text in texts]
    tags = [random_tags(rng, own) for own in sentences]
    names = 0
    for text, *own, found in zip(texts, sentences, tags, names_in_graph(texts, sentences, tags), strict=True):
        assert found == names_in_python(text, *own), repr((text, own[1]))
        names += len(found)
    assert names > 2000


def test_the_score_is_that_of_the_words_that_are_left():
    name, = find_names(["🎉", "Rome", "(", "Italy", ")", "!"], ["O", "B-LOC", "I-LOC", "I-LOC", "O", "O"])
    assert name == ("LOC", 1, 5, 1, 4)
    name, = find_names(['"', "Ada", "Byron", '"'], ["B-PER", "I-PER", "I-PER", "I-PER"])
    assert name == ("PER", 1, 3, 1, 3)


def test_a_type_is_no_name_if_enough_of_its_training_entities_are_none():
    entities = [["5", "May"], ["ada@x.org"], ["$", "40"], ["May"], ["Ada"], ["!"], ["Boeing", "747"]]
    assert list(map(is_non_name, entities)) == [True, True, True, False, False, True, False]
    counts = {"PER": 1000, "DATE": 50, "ORG": 10, "NONE": 0}
    assert find_non_name_types(counts, {"PER": 3, "DATE": 1}) == ("DATE",)


@pytest.mark.parametrize("unit", ["Ada", "(", ")", "/", "a.", "1", "Ada/", "\\", "@", "ab1", ".pdf"])
def test_long_texts_take_linear_time(unit):
    text = unit * (12_000 // len(unit))
    sentences = split_sentences(text)
    tags = [["B-PER"] * len(words) for words in sentences]
    assert names_in_graph([text], [sentences], [tags]) == [names_in_python(text, sentences, tags)]
