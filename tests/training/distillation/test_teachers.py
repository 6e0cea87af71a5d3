"""Teachers that know another task."""

import pytest
from toy import TEXT_LABELS, make_classifier

from app.config import DistillConfig, InputError
from app.tasks.bundle import save_model
from app.text.shapes import NUM_SHAPES
from app.training.distillation.teachers import check_teachers


def test_a_teacher_of_another_task_is_told_apart(vocabulary, tmp_path):
    save_model(make_classifier(vocabulary), tmp_path / "model", shape_count=NUM_SHAPES, card="A classifier.\n")
    config = DistillConfig(teachers=(str(tmp_path),))
    assert check_teachers(config, task="classification") == TEXT_LABELS
    with pytest.raises(InputError, match=r"was trained for task=classification, its student would be for task=tagging"):
        check_teachers(config, task="tagging")
