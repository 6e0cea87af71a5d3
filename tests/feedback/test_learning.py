"""Which corrections are learnt, which are held out, and what is replayed beside them."""

import pytest

from app.config import InputError, RunError
from app.config.loading import load_config
from app.evaluation.manifest import PROVENANCE_FILE
from app.feedback.learning import (
    check_labels,
    is_held_out,
    known_labels,
    open_store_of,
    select_again,
    select_corrections,
)
from app.feedback.lineage import describe_live, find_live, find_serving, find_version_of, name_live, require_live
from app.feedback.replay import BLOCK, count_replayed, sample_examples, without
from app.feedback.store import Correction, Store
from app.feedback.versions import set_label
from app.run.directory import RunDirectory


def correction(text: str, label: str = "good", **fields) -> Correction:
    return Correction(text, "classification", {"label": label}, **fields)


@pytest.fixture
def small(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/feedback.sqlite") as opened:
        yield opened


def select(store: Store, fraction: float = 0.2, **wanted):
    return select_corrections(store, held_out_fraction=fraction, **{"task": "classification", "model": "", **wanted})


def test_about_the_asked_part_is_held_out_and_a_larger_part_holds_the_smaller_one():
    texts = [f"text number {number}" for number in range(2000)]
    small, large = ({text for text in texts if is_held_out(text, part)} for part in (0.2, 0.4))
    assert len(small) / len(texts) == pytest.approx(0.2, abs=0.03)
    assert small < large
    assert not any(is_held_out(text, 0) for text in texts)


def test_blanks_and_unicode_forms_of_a_text_do_not_change_its_side():
    for text in ("Caf\u00e9 in  Lima", "Zo\u00eb met\nAda"):
        other = text.replace("\u00e9", "e\u0301").replace("\u00eb", "e\u0308").replace("  ", " ").replace("\n", " ")
        for part in (0.1, 0.5, 0.9):
            assert is_held_out(text, part) == is_held_out(f" {other} ", part)


def test_the_last_judgement_counts_and_a_text_is_on_the_same_side_in_later_updates(small):
    small.add([correction(f"text {number}") for number in range(40)])
    first = select(small)
    small.add([correction(f"text {number}", "bad") for number in range(80)])
    later = select(small)
    assert {each.answer["label"] for each in (*later.learnt, *later.held_out)} == {"bad"}
    assert {each.text for each in first.held_out} <= {each.text for each in later.held_out}
    assert {each.text for each in first.held_out}.isdisjoint(each.text for each in later.learnt)


def test_a_resumed_run_learns_what_it_began_with_and_says_if_that_is_gone(small):
    small.add([correction(f"text {number}", author="ann" if number else "bob") for number in range(20)])
    begun = select(small)
    small.add([correction(f"text {number}", "bad") for number in range(30)])
    run_dir = RunDirectory("runs/new")
    assert select_again(small, begun.ids(), run_dir=run_dir) == begun
    small.delete(author="bob")
    with pytest.raises(InputError, match="1 of the 20 corrections that runs/new began with has been deleted"):
        select_again(small, begun.ids(), run_dir=run_dir)


def test_what_nobody_can_learn_from_is_told(small):
    with pytest.raises(InputError, match="no corrections for task=classification to learn from, it is empty"):
        select(small)
    small.add([correction("one", verdict="skipped"), Correction("two", "tagging", {"entities": []})])
    with pytest.raises(InputError, match="it has 2 for other tasks or models"):
        select(small)
    small.add([correction("one", model="a")])
    assert len(select(small).learnt) == 1
    with pytest.raises(InputError, match=r"of answers by b \(update.model\)"):
        select(small, model="b")
    with pytest.raises(InputError, match="all corrected texts, 1, are held out"):
        select(small, fraction=1 - 1e-9)


def test_a_label_that_the_model_does_not_know_is_told_with_what_to_do():
    labels = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    known = known_labels("tagging", labels)
    entities = [{"start": 0, "end": 3, "label": "PER"}]
    check_labels([Correction("Ada", "tagging", {"entities": entities})], known, source="runs/ner")
    entities = [*entities, {"start": 4, "end": 7, "label": "ORG"}]
    with pytest.raises(InputError, match=r"the label ORG, .*runs/ner does not know \(it knows LOC, PER\).*finetune"):
        check_labels([Correction("Ada IBM", "tagging", {"entities": entities})], known, source="runs/ner")
    check_labels([correction("x", None), Correction("y", "classification", {"labels": ["bad"]})], ["bad"], source="r")
    with pytest.raises(InputError, match="the label ugly"):
        check_labels([Correction("y", "classification", {"labels": ["bad", "ugly"]})], ["bad"], source="r")


def test_an_update_of_an_update_uses_the_store_and_the_versions_of_the_run_that_serves(tmp_path):
    first, second = RunDirectory(tmp_path / "runs" / "ner"), RunDirectory(tmp_path / "runs" / "ner-2")
    second.write_json(second.update_json, {"serving": "../ner"})
    first.path.mkdir(parents=True)
    assert find_serving(second).path == first.path and find_serving(first) is first
    config = load_config(None)
    with pytest.raises(InputError, match="runs/ner/feedback.sqlite is missing"):
        open_store_of(config, second, made=False)
    with open_store_of(config, second) as store:
        store.add([correction("kept")])
    assert (first.path / "feedback.sqlite").is_file()
    moved = tmp_path / "moved"
    (tmp_path / "runs").rename(moved)
    with open_store_of(config, RunDirectory(moved / "ner-2"), made=False) as store:
        assert store.count() == 1


def test_what_stays_when_an_update_of_an_update_is_refused_is_what_is_live(tmp_path):
    first, second, third = (RunDirectory(tmp_path / name) for name in ("ner", "ner-2", "ner-3"))
    for number, run in enumerate((first, second), 1):
        run.write_json(run.model_sums, {})
        version = first.saved_model / str(number)
        run.write_json(version / PROVENANCE_FILE, {"run": f"../{run.path.name}"})
        run.write_bytes(version / "saved_model.pb", b"")
    for run, start in ((second, "ner"), (third, "ner-2")):
        run.write_json(run.update_json, {"serving": "../ner", "from": f"../{start}"})
    set_label(first.path, "stable", 1)
    set_label(first.path, "canary", 2)
    assert find_live(second).path == second.path  # where `third` starts, which is on trial only
    assert name_live(find_serving(third)) == str(first)
    set_label(first.path, "stable", 2)
    assert name_live(find_serving(third)) == str(second)
    third.write_json(third.update_json, {"serving": "../ner", "live": describe_live(first, third)})
    require_live(first, third)
    set_label(first.path, "stable", 1)  # somebody rolls back while `third` trains
    with pytest.raises(RunError, match=f"passed against {second}, .*and {first} is live now"):
        require_live(first, third)
    set_label(first.path, "stable", 2)
    second.model_sums.unlink()
    assert name_live(find_serving(third)) == f"version 2 of {first}"


def test_so_many_examples_are_replayed_that_they_are_the_asked_part():
    assert [count_replayed(10, part) for part in (0, 0.5, 0.8)] == [0, 10, 40]


def test_the_sample_is_drawn_by_seed_in_corpus_order_and_by_neighbours():
    corpus = [(number, number // 20) for number in range(200)]  # (example, document)

    def draw(count: int, seed: int = 0) -> list[int]:
        found = sample_examples(lambda: corpus, count, seed=seed, group_of=lambda example: example[1])
        return [number for number, _ in found]

    assert draw(30) == draw(30) != draw(30, seed=1)
    assert len(draw(30)) == len(set(draw(30))) == 30 and draw(30) == sorted(draw(30))
    neighbours = sum(b - a == 1 for a, b in zip(draw(30), draw(30)[1:], strict=False))
    assert neighbours >= 30 - 30 // 4 - 1  # blocks of at least four
    assert draw(1000) == list(range(200)) and draw(0) == []
    assert BLOCK < 20


def test_a_corrected_text_is_not_replayed():
    examples = [("a", "b"), ("c",), ("a", "b", "c")]
    assert list(without(examples, {("a", "b")}, list)) == [("c",), ("a", "b", "c")]
    spellings = [("ADA", "caf\u00e9"), ("ada", "cafe\u0301"), ("\uff21da", "Caf\u00e9")]
    assert list(without([*spellings, ("Ada",)], {("Ada", "caf\u00e9")}, list)) == [("Ada",)]


def test_what_is_held_out_is_not_learnt_in_another_spelling(small, capsys):
    texts = [f"Caf\u00e9 number {number}" for number in range(40)]
    small.add([correction(text) for text in texts])
    small.add([correction(each) for text in texts for each in (text.upper(), f"\uff23{text[1:]}")])
    found = select(small, 0.3)
    assert len(found.held_out) > 20 and len(found.learnt) > 20
    folded = [{each.text.upper().replace("\uff23", "C") for each in part} for part in (found.learnt, found.held_out)]
    assert folded[0].isdisjoint(folded[1])
    assert "held out in another spelling" in capsys.readouterr().err


def test_the_version_of_an_update_is_found_again_by_its_run_and_its_weights(tmp_path):
    serving, update, other = (RunDirectory(tmp_path / name) for name in ("ner", "ner-2", "ner-3"))
    made = [(1, None), (2, (".", "a")), (3, ("../ner-2", "old")), (4, ("../ner-2", "new")), (5, ("../ner-3", "new"))]
    for number, provenance in made:
        version = serving.saved_model / str(number)
        serving.write_bytes(version / "saved_model.pb", b"x")
        if provenance:
            record = dict(zip(("run", "weights_sha256"), provenance, strict=True))
            serving.write_json(version / PROVENANCE_FILE, record)
    for run, weights in ((update, "new"), (other, "else")):
        run.update_metrics({"weights_sha256": weights})
    assert (find_version_of(update, serving), find_version_of(other, serving)) == (4, 0)
    (serving.saved_model / "4" / "saved_model.pb").unlink()  # not complete
    assert find_version_of(update, serving) == 0


def test_a_version_that_had_a_label_once_is_known(tmp_path):
    run = RunDirectory(tmp_path)
    for number in (1, 2, 3):
        run.write_bytes(run.saved_model / str(number) / "saved_model.pb", b"x")
    set_label(tmp_path, "stable", 1)
    set_label(tmp_path, "canary", 2)
    labels = set_label(tmp_path, "canary", 0)
    assert [labels.has_been(number) for number in (1, 2, 3)] == [True, True, False]
