"""What is hidden: real pieces only, as many as asked for, whole words on request, the same for the same seed."""

import numpy as np
import pytest
import tensorflow as tf

from app.tasks.masked_lm.masking import PieceMasker, with_masks
from app.text.word_pieces import WordPieces

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", *(f"##{letter}" for letter in "abcdefgh")]
PIECES = WordPieces(VOCABULARY, lowercase=True)
FRACTION, LENGTH, ROWS = 0.25, 24, 64


def make_batch(seed: int = 0) -> dict[str, tf.Tensor]:
    """Rows `[CLS] pieces [SEP] pieces [SEP] [PAD]` of random lengths; about half of the pieces go on a word."""
    random = np.random.default_rng(seed)
    ids = np.zeros((ROWS, LENGTH), np.int32)
    for row in ids:
        size = random.integers(6, LENGTH + 1)
        row[:size] = random.integers(5, len(VOCABULARY), size)
        row[random.integers(1, size - 1)] = PIECES.unknown_id
        row[[0, size // 2, size - 1]] = PIECES.start_id, PIECES.end_id, PIECES.end_id
    return {"token_ids": tf.constant(ids), "padding_mask": tf.cast(ids > 0, tf.int32), "other": tf.range(ROWS)}


def masked(whole_words: bool, seed=(0, 0)) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    batch = make_batch()
    found = PieceMasker.build(PIECES, fraction=FRACTION, whole_words=whole_words).mask(batch, seed)
    return batch["token_ids"].numpy(), {name: value.numpy() for name, value in found.items()}


@pytest.mark.parametrize("whole_words", [False, True])
def test_only_real_pieces_are_hidden_and_each_is_asked_for_once(whole_words):
    before, found = masked(whole_words)
    special = before < 5
    for row in range(ROWS):
        asked = found["weights"][row] > 0
        positions = found["positions"][row][asked]
        budget = min(np.ceil(FRACTION * (~special[row]).sum()), round(FRACTION * LENGTH))
        assert len(set(positions)) == asked.sum() <= budget and asked.sum() >= 1
        assert whole_words or asked.sum() == budget
        assert not special[row][positions].any()
        assert (found["targets"][row][asked] == before[row][positions]).all()
        unasked = np.setdiff1d(np.arange(LENGTH), positions)
        assert (found["token_ids"][row][unasked] == before[row][unasked]).all()
    assert (found["other"] == np.arange(ROWS)).all()


def test_whole_words_are_hidden_whole_unless_one_alone_exceeds_the_fraction():
    before, found = masked(True)
    cut = 0
    for row in range(ROWS):
        positions = set(found["positions"][row][found["weights"][row] > 0])
        word, words = [], []
        for place, piece in enumerate(before[row]):
            if piece >= 5 and VOCABULARY[piece].startswith("##") and word:
                word.append(place)
            else:
                words += [word] if word else []
                word = [place] if piece >= 5 else []
        words += [word] if word else []
        touched = [word for word in words if positions & set(word)]
        part = [word for word in touched if not set(word) <= positions]
        cut += len(part)
        assert not part or len(touched) == 1, (row, touched, positions)
    assert cut < ROWS / 4


def test_eight_of_ten_chosen_pieces_become_masks_one_stays_and_none_becomes_special():
    kinds = np.zeros(3)
    for step in range(40):
        _, found = masked(False, (3, step))
        asked = found["weights"] > 0
        shown = np.take_along_axis(found["token_ids"], found["positions"], axis=1)[asked]
        kinds += [(shown == PIECES.mask_id).sum(), (shown == found["targets"][asked]).sum(), len(shown)]
        assert set(np.unique(shown)) <= {PIECES.mask_id, *range(5, len(VOCABULARY))}
    assert kinds[0] / kinds[2] == pytest.approx(0.8, abs=0.02)
    assert kinds[1] / kinds[2] == pytest.approx(0.1 + 0.1 / 16, abs=0.02)  # a random piece may be the right one


def test_masks_are_a_function_of_seed_and_step_so_a_resumed_run_hides_the_same():
    rows = tf.data.Dataset.from_tensors(make_batch()).repeat(6)
    masker = PieceMasker.build(PIECES, fraction=FRACTION)
    whole = list(with_masks(rows, masker, seed=5, first_step=0))
    rest = list(with_masks(rows.skip(4), masker, seed=5, first_step=4))
    for one, other in zip(whole[4:], rest, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not np.array_equal(whole[0]["positions"], whole[1]["positions"])
    other_seed = next(iter(with_masks(rows, masker, seed=6, first_step=0)))
    assert not np.array_equal(whole[0]["positions"], other_seed["positions"])


@pytest.mark.parametrize("whole_words", [False, True])
def test_masking_compiles_with_xla_to_the_same_result(whole_words):
    masker = PieceMasker.build(PIECES, fraction=FRACTION, whole_words=whole_words)
    batch = make_batch()
    plain, compiled = masker.mask(batch, (1, 2)), tf.function(masker.mask, jit_compile=True)(batch, (1, 2))
    weights = plain["weights"].numpy() > 0
    assert np.array_equal(weights, compiled["weights"].numpy() > 0)
    assert np.array_equal(plain["positions"].numpy()[weights], compiled["positions"].numpy()[weights])
