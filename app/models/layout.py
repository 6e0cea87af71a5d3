"""Models room: which weights of a network are cut over the devices of a mesh, and along which axis.

Attention is cut by heads and the feed-forward network by columns, so that each pair of products needs one sum between
devices (Shoeybi et al. 2019, Megatron-LM). Embedding tables are cut by columns: DTensor cannot look up rows in a table
whose rows are shared out. Layer norms and the biases behind a sum lie whole on every device; they are small.
"""

from contextlib import AbstractContextManager

from keras_nlp.models import BertBackbone
from tensorflow.experimental import dtensor

from app.config import InputError
from app.models.slim_bert import SlimBertBackbone
from app.one_keras import keras

# Attribute paths of variables, as regular expressions -> for each axis, whether it is cut.
_CUTS = {
    r"(token|segment)_embedding\.embeddings": (False, True),  # [rows, width]
    r"position_embedding\.position_embeddings": (False, True),
    r".*_self_attention_layer\._(query|key|value)_dense\.kernel": (False, True, False),  # [width, heads, size]
    r".*_self_attention_layer\._(query|key|value)_dense\.bias": (True, False),
    r".*_self_attention_layer\._output_dense\.kernel": (True, False, False),  # [heads, size, width]
    r".*_feedforward_intermediate_dense\.kernel": (False, True),  # [width, inner width]
    r".*_feedforward_intermediate_dense\.bias": (True,),
    r".*_feedforward_output_dense\.kernel": (True, False),
}


def layout_scope(mesh: dtensor.Mesh) -> AbstractContextManager[None]:
    """A scope in which networks are built with their variables on the mesh; others than encoders' lie there whole."""
    layouts = keras.dtensor.experimental.LayoutMap(mesh=mesh)
    (axis,) = mesh.dim_names
    for path, cuts in _CUTS.items():
        layouts[path] = dtensor.Layout([axis if cut else dtensor.UNSHARDED for cut in cuts], mesh)
    return layouts.scope()


def check_cuts(model: BertBackbone, devices: int) -> None:
    """Raises InputError if an encoder cannot be cut into so many equal parts."""
    if isinstance(model, SlimBertBackbone):
        raise InputError("pretrain.model_parallel needs layers of one size, received a pruned backbone")
    sizes = {"heads": model.num_heads, "width": model.hidden_dim, "feed-forward width": model.intermediate_dim}
    unequal = [f"{name} {size}" for name, size in sizes.items() if size % devices]
    if unequal:
        raise InputError(
            f"pretrain.model_parallel must divide {', '.join(unequal)} of the backbone, received {devices}"
        )
