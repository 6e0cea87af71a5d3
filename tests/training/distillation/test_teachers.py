"""Teachers that are not those a student began with, or that know another task."""

from dataclasses import replace

import pytest
from toy import TEXT_LABELS, make_classifier, make_tagger

from app.config import DistillConfig, InputError
from app.run.directory import RunDirectory
from app.tasks.bundle import save_facts, save_model
from app.tasks.corpora import check_same_corpora, note_corpora
from app.text.shapes import NUM_SHAPES
from app.training.distillation.assembly import describe_teachers
from app.training.distillation.teachers import check_teachers


def test_a_student_does_not_resume_with_other_weights_of_its_teacher(vocabulary, tmp_path):
    teacher, student = tmp_path / "teacher", RunDirectory(tmp_path / "student")
    model = make_tagger(vocabulary, seed=1)
    save_model(model, teacher / "model", shape_count=NUM_SHAPES, card="A teacher.\n")
    config = DistillConfig(teachers=(str(teacher),))
    note_corpora(student, describe_teachers(config))
    save_facts(replace(model, facts={"temperature": 2.0}), teacher / "model")  # what it learns of its own certainty
    check_same_corpora(student, describe_teachers(config))
    other = make_tagger(vocabulary, seed=2)
    save_model(other, teacher / "model", shape_count=NUM_SHAPES, card="Another one.\n")
    with pytest.raises(InputError, match=r"distill\.teachers: the weights in .*teacher are not those .* --overwrite"):
        check_same_corpora(student, describe_teachers(config))


def test_of_a_teacher_that_is_no_run_nothing_is_known():
    assert describe_teachers(DistillConfig(teachers=("minilm",))) == {}


def test_a_teacher_of_another_task_is_told_apart(vocabulary, tmp_path):
    save_model(make_classifier(vocabulary), tmp_path / "model", shape_count=NUM_SHAPES, card="A classifier.\n")
    config = DistillConfig(teachers=(str(tmp_path),))
    assert check_teachers(config, task="classification") == TEXT_LABELS
    with pytest.raises(InputError, match=r"was trained for task=classification, its student would be for task=tagging"):
        check_teachers(config, task="tagging")
