"""Students made of layers of their teacher: which weights they have."""

import numpy as np
import pytest
from toy import make_batch, make_tagger

from app.config import InputError, ModelConfig
from app.tasks.network import build_model
from app.text.shapes import NUM_SHAPES
from app.training.distillation.student import build_from_layers, copy_head
from app.training.distillation.view import build_view

CRF = ModelConfig(head="crf", head_dropout=0.0)


def test_a_student_of_all_layers_is_its_teacher_and_one_of_chosen_layers_has_their_weights(vocabulary):
    teacher = make_tagger(vocabulary, model=CRF, num_layers=3)
    features = {name: make_batch(teacher)[name] for name in teacher.network.input_names}

    def cut(layers):
        backbone = build_from_layers(teacher.backbone, layers, dropout=0.0, attention_dropout=0.0)
        student = build_model(backbone, CRF, task=teacher.task, labels=teacher.labels, shape_count=NUM_SHAPES)
        copy_head(teacher, student)
        return student

    whole = cut([0, 1, 2])
    np.testing.assert_array_equal(whole.network(features), teacher.network(features))
    np.testing.assert_array_equal(whole.head.transitions, teacher.head.transitions)
    part = cut([0, 2])
    states = build_view(part, hidden_layers=[1])(features)["hidden_1"]
    first = build_view(teacher, hidden_layers=[0])(features)["hidden_0"]
    mask = features["padding_mask"]
    last = teacher.backbone.model.transformer_layers[2](first, attention_mask=mask[:, :, None] == mask[:, None, :])
    np.testing.assert_allclose(states, last, atol=1e-5)
    for layers in ([0, 3], [], [1, 0], [1, 1]):
        with pytest.raises(InputError, match=r"distill.student_layers must name layers of .*, 0 to 2 in rising order"):
            cut(layers)


def test_a_student_of_layers_of_an_mpnet_shares_its_table(vocabulary):
    teacher = make_tagger(vocabulary, model=CRF, num_layers=3, mpnet=True).backbone
    table = teacher.model.relative_bias.table.numpy()
    student = build_from_layers(teacher, [0, 2], dropout=0.0, attention_dropout=0.0)
    assert student.model.relative_heads == ((0, 1),) * 2
    np.testing.assert_array_equal(student.model.relative_bias.table, table)
    for new, number in zip(student.model.transformer_layers, (0, 2), strict=True):
        for ours, theirs in zip(new.weights, teacher.model.transformer_layers[number].weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
