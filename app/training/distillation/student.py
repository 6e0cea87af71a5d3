"""Training room: a student that is made of layers of its teacher."""

import dataclasses
from collections.abc import Sequence

from app.encoder.bert import Backbone, keep_layers, make_bert_backbone, read_settings
from app.encoder.relative import relative_bias_of
from app.tasks.network import TaskModel
from app.training.distillation.teachers import check_student_layers


def build_from_layers(
    teacher: Backbone, layers: Sequence[int], *, dropout: float, attention_dropout: float
) -> Backbone:
    """An encoder of some of the layers of another, with copies of their weights and of the embeddings.

    Raises:
        InputError: the layers do not exist, or are not in rising order.
    """
    check_student_layers(layers, teacher=teacher.source, count=len(teacher.model.transformer_layers))
    settings = dataclasses.replace(
        keep_layers(read_settings(teacher.model), layers), dropout=dropout, attention_dropout=attention_dropout
    )
    model = make_bert_backbone(settings)
    copied = ["token_embedding", "position_embedding", "segment_embedding", "embeddings_layer_norm", "pooled_dense"]
    if relative_bias_of(model) is not None:
        copied.append("relative_bias")
    for name in copied:
        getattr(model, name).set_weights(getattr(teacher.model, name).get_weights())
    for new, number in zip(model.transformer_layers, layers, strict=True):
        new.set_weights(teacher.model.transformer_layers[number].get_weights())
    return dataclasses.replace(teacher, model=model)


def copy_head(teacher: TaskModel, student: TaskModel) -> None:
    """Copies word shapes, head and transition scores where both taggers have them in the same shape."""
    theirs = teacher.own_variables()
    for name, variable in student.own_variables().items():
        if name in theirs and theirs[name].shape == variable.shape:
            variable.assign(theirs[name])
