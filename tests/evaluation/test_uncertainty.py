"""How unsure a model is, against the definitions summed over all answers there are, and what a person sees first."""

import dataclasses
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toy import LABELS, make_classifier, make_encoder, make_tagger

from app.config import RANKS, Config, DataConfig, InputError, ModelConfig, fields_by_key
from app.evaluation.predictor import Predictor, join_rows
from app.evaluation.ranking import Measurer, Ranking, order_texts, rank_texts
from app.evaluation.runtimes import build_predictor
from app.evaluation.uncertainty import MEASURES, disagreement, entropy, least_confidence, margin, measure_row
from app.tasks.beliefs import Belief, believe_logits, join_beliefs
from app.tasks.network import build_encoder
from app.tasks.tagging.head import decode_sentences, measure_beliefs
from app.tasks.tagging.task import TAGGING
from app.tasks.task import Task

PROJECT = Path(__file__).parents[2]
TEXTS = [
    "Ada Smith met Bob in Rome .",
    "the house",
    "",
    "Jordan saw the old Jordan City",
    "went to " * 30 + "Oslo .",
    " \t ",
    "Cleo was old. The house was in Lima.",
    "Rome",
    "Bob",
]


@pytest.fixture(scope="module")
def tagger(vocabulary):
    return make_tagger(vocabulary, model=ModelConfig(head="crf", head_dropout=0.0), seed=4)


@pytest.fixture(scope="module")
def classifier(vocabulary):
    return make_classifier(vocabulary, seed=2)


def predictor_of(model, *, batch_size: int = 4) -> Predictor:
    if model.task is TAGGING:
        return build_predictor(model, make_encoder(model), batch_size=batch_size)
    data = DataConfig(max_length=32, overlap_tokens=8)
    return build_predictor(model, build_encoder(model, data), batch_size=batch_size)


def certain(*rows: list[float]) -> Belief:
    """Of units that are independent of each other."""
    chances = np.array(rows, np.float64)
    return Belief(chances, float(np.log(chances.max(axis=1)).sum()))


# What a model believes.


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("kind", ["crf", "softmax"])
def test_beliefs_about_sentences_are_sums_over_all_legal_tag_sequences(vocabulary, kind, temperature):
    model = make_tagger(vocabulary, model=ModelConfig(head=kind, head_dropout=0.0))
    scoring = dataclasses.replace(model.head.decoding_scores(), temperature=temperature)
    rng = np.random.default_rng(8)
    emissions = [rng.normal(size=(words, len(LABELS))).astype(np.float32) for words in (1, 4, 0, 3)]
    labels, _ = decode_sentences(emissions, scoring)
    found = measure_beliefs(emissions, labels, scoring)
    assert found[2].chances.shape == (0, len(LABELS)) and found[2].log_probability == 0
    for number in (0, 1, 3):
        words = len(emissions[number])
        sequences = list(itertools.product(range(len(LABELS)), repeat=words))
        scores = np.array([
            sum(float(emissions[number][at, label]) for at, label in enumerate(each))
            + scoring.start[each[0]] + scoring.end[each[-1]]
            + sum(scoring.transitions[pair] for pair in itertools.pairwise(each))
            for each in sequences
        ]) / temperature  # fmt: skip
        chances = np.exp(scores - scores.max())
        chances /= chances.sum()
        marginals = np.zeros((words, len(LABELS)))
        for each, chance in zip(sequences, chances, strict=True):
            marginals[np.arange(words), list(each)] += chance
        np.testing.assert_allclose(found[number].chances, marginals, atol=1e-5)
        assert found[number].log_probability == pytest.approx(np.log(chances.max()), abs=1e-4)
        assert least_confidence(found[number]) == pytest.approx(1 - chances.max() ** (1 / words), abs=1e-4)
        sums = -(marginals * np.log(np.maximum(marginals, 1e-300))).sum(axis=1)
        assert entropy(found[number]) == pytest.approx(sums.mean() / np.log(len(LABELS)), abs=1e-4)
        best = np.sort(marginals, axis=1)
        assert margin(found[number]) == pytest.approx(1 - (best[:, -1] - best[:, -2]).mean(), abs=1e-4)


def test_beliefs_about_texts_are_softmax_or_sigmoid_at_the_temperature():
    logits = [np.array([2.0, 0.0, -1.0]), np.array([0.0, 0.0, 0.0])]
    one, even = believe_logits(logits, independent=False, temperature=2.0)
    expected = np.exp([1.0, 0.0, -0.5])
    np.testing.assert_allclose(one.chances, [expected / expected.sum()])
    assert one.log_probability == pytest.approx(np.log(expected[0] / expected.sum()))
    np.testing.assert_allclose(even.chances, [[1 / 3] * 3])
    several, _ = believe_logits(logits, independent=True, temperature=2.0)
    given = 1 / (1 + np.exp([-1.0, 0.0, 0.5]))
    np.testing.assert_allclose(several.chances, np.stack([1 - given, given], axis=1))
    assert several.log_probability == pytest.approx(np.log(given[0] * 0.5 * (1 - given[2])))


# Measures.


def test_measures_of_two_words_by_hand():
    belief = certain([0.7, 0.2, 0.1], [0.5, 0.4, 0.1])
    assert least_confidence(belief) == pytest.approx(1 - np.sqrt(0.7 * 0.5))
    assert margin(belief) == pytest.approx(1 - (0.5 + 0.1) / 2)
    nats = -sum(p * np.log(p) for p in (0.7, 0.2, 0.1, 0.5, 0.4, 0.1)) / 2
    assert entropy(belief) == pytest.approx(nats / np.log(3))


def test_measures_are_0_where_a_model_is_certain_1_where_it_knows_nothing_and_do_not_grow_with_length():
    sure, clueless, between = certain([1.0, 0, 0]), certain([1 / 3] * 3), certain([0.6, 0.3, 0.1])
    for measure in (margin, entropy):
        assert measure(sure) == 0 and measure(clueless) == pytest.approx(1)
    assert least_confidence(sure) == 0 and least_confidence(clueless) == pytest.approx(2 / 3)
    for measure in MEASURES.values():
        assert measure(sure) < measure(between) < measure(clueless)
        assert measure(join_beliefs([between] * 50)) == pytest.approx(measure(between))
        assert measure(join_beliefs([])) == 0
        assert measure(join_beliefs([sure] * 9 + [clueless])) < measure(clueless)


def test_two_models_disagree_by_the_divergence_of_what_they_believe():
    one, other = certain([1.0, 0.0], [0.5, 0.5]), certain([0.0, 1.0], [0.5, 0.5])
    assert disagreement(one, one) == 0 and disagreement(one, other) == pytest.approx(0.5)
    assert disagreement(certain([1.0, 0.0]), certain([0.0, 1.0])) == pytest.approx(1)
    p, q = np.array([0.8, 0.2]), np.array([0.4, 0.6])
    mean = (p + q) / 2
    by_hand = (np.sum(p * np.log(p / mean)) + np.sum(q * np.log(q / mean))) / 2 / np.log(2)
    assert disagreement(certain(list(p)), certain(list(q))) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match=r"received \(2, 2\) and \(1, 2\)"):
        disagreement(one, certain([0.5, 0.5]))


def test_every_rank_of_the_settings_is_known_and_every_measure_can_be_asked_for():
    assert fields_by_key()["predict.rank"].metadata["choices"] == ("", *RANKS)
    assert set(MEASURES) | {"uncertainty", "diversity", "disagreement"} == set(RANKS)


# Order.


def test_the_least_sure_comes_first_and_equals_stay_in_their_order():
    assert order_texts([0.1, 0.5, 0.3, 0.5, 0.1]).tolist() == [1, 3, 2, 0, 4]
    assert order_texts([0.1, 0.5, 0.3], top=2).tolist() == [1, 2]
    assert order_texts([]).tolist() == []


def test_diversity_takes_the_least_sure_of_each_group_before_the_second_of_any():
    places = np.eye(3, dtype=np.float32)
    embeddings = np.stack([places[0], places[0], places[0], places[1], places[1], places[2], np.zeros(3, np.float32)])
    uncertainties = [0.9, 0.8, 0.7, 0.2, 0.3, 0.1, 0.0]
    assert order_texts(uncertainties, embeddings=embeddings, top=3).tolist() == [0, 4, 5]
    everything = order_texts([*uncertainties, 0, 0], embeddings=np.concatenate([embeddings, np.zeros((2, 3))]))
    assert everything[:3].tolist() == [0, 4, 5] and everything[-3:].tolist() == [6, 7, 8]
    assert sorted(order_texts(uncertainties, embeddings=embeddings, top=6).tolist()) == [0, 1, 2, 3, 4, 5]
    nothing = order_texts([0.0, 0.0], embeddings=np.zeros((2, 3), np.float32))
    assert nothing.tolist() == [0, 1]


def test_rows_wait_on_disk_and_come_back_as_they_were():
    ranking = Ranking()
    rows = [{"text": f"\ud83d {number} é\n", "n": [number, None, 0.1]} for number in range(5)]
    for row, value in zip(rows, (0.1, 0.4, 0.2, 0.9, 0.3), strict=True):
        ranking.add(row, Measured(value))
    expected = [
        {**rows[n], "uncertainty": u, "rank": r, "occurrences": 1} for r, (n, u) in enumerate([(3, 0.9), (1, 0.4)], 1)
    ]
    assert len(ranking) == 5 and list(ranking.rows(top=2)) == expected
    assert [row["rank"] for row in ranking.rows()] == [1, 2, 3, 4, 5]
    ranking.close()


@pytest.mark.parametrize("width", [0, 2])
def test_a_text_that_is_there_several_times_comes_once_as_the_first_of_them(width):
    ranking = Ranking()
    texts = ["b", "a", "b", "", "c\ud83d", "a", "b", "", "c"]
    unsure = {"a": 0.1, "b": 0.4, "": 0.0, "c\ud83d": 0.9, "c": 0.2}
    for number, text in enumerate(texts):
        ranking.add({"id": number, "text": text}, Measured(unsure[text], np.ones(width, np.float32) / 2))
    found = [(row["id"], row["text"], row["occurrences"], row["rank"]) for row in ranking.rows()]
    assert found == [(4, "c\ud83d", 1, 1), (0, "b", 3, 2), (8, "c", 1, 3), (1, "a", 2, 4), (3, "", 2, 5)]
    assert [row["text"] for row in ranking.rows(top=2)] == ["c\ud83d", "b"]
    ranking.close()


def test_a_ranking_of_nothing_is_empty():
    ranking = Ranking()
    assert list(ranking.rows()) == []
    ranking.close()


@dataclasses.dataclass
class Measured:
    uncertainty: float
    embedding: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))


# Models that are asked.


@pytest.mark.parametrize("by", ["uncertainty", "least_confidence", "margin", "entropy", "diversity"])
@pytest.mark.parametrize("kind", ["tagger", "classifier"])
def test_texts_come_back_with_their_answers_and_those_without_a_word_last(request, kind, by):
    model = request.getfixturevalue(kind)
    predictor = predictor_of(model)
    found = rank_texts(model, predictor, TEXTS, by=by)
    answers = list(model.task.answer_texts(model, TEXTS, predictor, Config().predict))
    assert [row.pop("rank") for row in found] == list(range(1, len(TEXTS) + 1))
    assert {row["number"] for row in found[-2:]} == {2, 5}
    values = {row.pop("number"): row.pop("uncertainty") for row in found}
    assert sorted(values) == list(range(len(TEXTS))) and values[2] == values[5] == 0 < values[1] <= 1
    for number, row in zip(values, found, strict=True):
        assert row == answers[number] | {"occurrences": 1}
    if by != "diversity":
        assert list(values.values()) == sorted(values.values(), reverse=True)
        alone = {n: rank_texts(model, predictor, [TEXTS[n]], by=by)[0]["uncertainty"] for n in (0, 3, 6)}
        assert alone == pytest.approx({n: values[n] for n in alone}, abs=1e-4)
    assert len(rank_texts(model, predictor, TEXTS, by=by, top=3)) == 3


def test_a_text_that_is_there_several_times_is_ranked_once(tagger):
    found = rank_texts(tagger, predictor_of(tagger), ["Bob", "Rome", "Bob", "", "Rome", "Bob"])
    places = {row["text"]: (row["number"], row["occurrences"]) for row in found}
    assert len(found) == 3 and places == {"Bob": (0, 3), "Rome": (1, 2), "": (3, 1)}


def test_measures_need_no_tensorflow():
    heavy = "{'tensorflow', 'keras', 'sklearn'}"
    code = f"import sys, app.evaluation.uncertainty; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout == "[]\n"


def test_a_text_of_two_sentences_is_as_sure_as_both_together(tagger):
    predictor = predictor_of(tagger)
    sentences = ["Cleo was old.", "The house was in Lima."]
    parts = list(predictor.answer([dataclasses.replace(each, document=0) for each in _sentences(sentences)]))
    beliefs = TAGGING.find_beliefs(tagger, parts)
    assert [len(belief.chances) for belief in beliefs] == [4, 6]
    for by, measure in MEASURES.items():
        (row,) = rank_texts(tagger, predictor, [" ".join(sentences)], by=by)
        assert row["uncertainty"] == pytest.approx(measure(join_beliefs(beliefs)), abs=1e-4)


def _sentences(texts):
    from app.data.sentence import Sentence
    from app.text.words import split_words

    return [Sentence(tuple(text[w.start : w.end] for w in split_words(text)), (), 0) for text in texts]


def test_the_temperature_of_validation_counts(vocabulary, tagger):
    hot = dataclasses.replace(tagger, facts={"temperature": 4.0})
    cold = rank_texts(tagger, predictor_of(tagger), TEXTS[:1])[0]["uncertainty"]
    assert rank_texts(hot, predictor_of(hot), TEXTS[:1])[0]["uncertainty"] > cold


def test_several_labels_are_measured_one_by_one(vocabulary):
    model = make_classifier(vocabulary, facts={"multi_label": True, "label_sets": ((0,), (1,), (2,))}, seed=2)
    found = rank_texts(model, predictor_of(model), TEXTS)
    for row in found[:-2]:
        chances = list(row["scores"].values())
        expected = 1 - np.mean([abs(2 * chance - 1) for chance in chances])
        assert row["uncertainty"] == pytest.approx(expected, abs=1e-3)
        assert measure_row(row) == pytest.approx(row["uncertainty"], abs=1e-3)


def test_an_answer_of_a_classifier_tells_the_same_and_that_of_a_tagger_its_least_sure_entity(classifier, tagger):
    for by in MEASURES:
        for row in rank_texts(classifier, predictor_of(classifier), TEXTS, by=by)[:-2]:
            assert measure_row(row, by=by) == pytest.approx(row["uncertainty"], abs=2e-3)
    row = {"text": "", "entities": [{"score": 0.9}, {"score": 0.6}]}
    assert measure_row(row) == pytest.approx(0.4)
    assert measure_row({"text": "", "entities": []}) is None and measure_row({"text": "", "length": 3}) is None


@pytest.mark.parametrize("kind", ["tagger", "classifier"])
def test_a_text_is_embedded_as_the_mean_of_its_hidden_states(request, kind):
    model = request.getfixturevalue(kind)
    predictor = predictor_of(model, batch_size=3)
    texts = [*TEXTS, "Rome"]
    found = Measurer(predictor, by="diversity").measure(texts)
    examples = []

    class Heard:
        def answer(self, asked, *, probabilities=False):
            examples.extend(asked)
            return predictor.answer(asked, probabilities=probabilities)

    list(model.task.answer_texts(model, TEXTS[:1], Heard(), Config().predict))
    (row,) = predictor.make_rows(examples)
    features, _ = join_rows([row], int(np.count_nonzero(row.padding_mask)))
    states = np.asarray(model.encoder(features, training=False))[0]
    mean = states[features["padding_mask"][0] > 0].mean(axis=0)
    np.testing.assert_allclose(found[0].embedding, mean / np.linalg.norm(mean), atol=1e-5)
    lengths = [np.linalg.norm(each.embedding) for each in found]
    np.testing.assert_allclose(lengths, [0.0 if not text.strip() else 1.0 for text in texts], atol=1e-5)
    np.testing.assert_allclose(found[7].embedding, found[9].embedding, atol=1e-5)


def test_a_model_agrees_with_itself_and_another_ones_answer_stands_beside(vocabulary, tagger):
    other = make_tagger(vocabulary, model=ModelConfig(head="crf", head_dropout=0.0), seed=5)
    mine, theirs = predictor_of(tagger), predictor_of(other)
    same = rank_texts(tagger, mine, TEXTS, by="disagreement", other=mine)
    assert {row["uncertainty"] for row in same} == {0.0} and [row["number"] for row in same] == [*range(len(TEXTS))]
    found = rank_texts(tagger, mine, TEXTS, by="disagreement", other=theirs)
    answers = list(TAGGING.answer_texts(other, TEXTS, theirs, Config().predict))
    for row in found:
        assert {"text": row["text"], **row["other_answer"]} == answers[row["number"]]
    assert found[0]["uncertainty"] > 0 and found[-1]["uncertainty"] == 0


def test_what_cannot_be_ranked_is_told_in_a_sentence(tagger, classifier):
    predictor = predictor_of(tagger)
    with pytest.raises(InputError, match="ranked by one of uncertainty, .*, received 'entrpoy'"):
        rank_texts(tagger, predictor, TEXTS, by="entrpoy")
    for by, other in (("disagreement", None), ("margin", predictor)):
        with pytest.raises(InputError, match="disagreement needs another model"):
            rank_texts(tagger, predictor, TEXTS, by=by, other=other)
    with pytest.raises(InputError, match="the same task and the same labels"):
        rank_texts(tagger, predictor, TEXTS, by="disagreement", other=predictor_of(classifier))
    with pytest.raises(InputError, match="task=tagging does not say how sure it is"):
        Task.find_beliefs(TAGGING, tagger, [])
    with pytest.raises(ValueError, match="a predictor of the model"):
        rank_texts(classifier, predictor, TEXTS)
