"""Tasks room: masked-language-model networks, over a backbone alone or over the encoder of a tagger."""

import tensorflow as tf
from keras_nlp.layers import MaskedLMHead

from app.data.packing import FEATURES
from app.encoder.bert import Backbone, find_depths, read_settings
from app.encoder.forward import run_encoder
from app.one_keras import keras
from app.tasks.network import TaskModel

HEAD_NAME = "masked_lm_head"
LOGITS = "masked_lm_logits"
PAIR_LOGITS = "pair_logits"


@tf.autograph.experimental.do_not_convert
def build_masked_lm(tagger: TaskModel) -> tuple[keras.Model, list[int]]:
    """A network that names hidden pieces, on the tagger's own encoder (Devlin et al. 2019, section 3.1).

    Returns:
        the network {token_ids, shape_ids, padding_mask: int32 [batch, length], positions: int32 [batch, hidden]} ->
        {masked_lm_logits: float32 [batch, hidden, vocabulary]}, and the depths of its trainable variables.
    """
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES}
    positions = keras.Input((None,), dtype="int32", name="positions")
    logits = _name_hidden_pieces(tagger.backbone, tagger.encoder(inputs), positions)
    network = keras.Model({**inputs, "positions": positions}, {LOGITS: logits}, name="masked_lm")
    return network, find_depths(tagger.backbone, network.trainable_variables)


@tf.autograph.experimental.do_not_convert
def build_pretrainer(backbone: Backbone, *, pairs: bool) -> tuple[keras.Model, list[int]]:
    """The network of BERT's pretraining: hidden pieces, and on request whether two segments belong together.

    Args:
        backbone: its encoder is trained.
        pairs: add the two-way classifier over the pooled `[CLS]` (next sentence or sentence order).

    Returns:
        the network {token_ids, segment_ids, padding_mask: int32 [batch, length], positions: int32 [batch, hidden]} ->
        {masked_lm_logits: float32 [batch, hidden, vocabulary], pair_logits: float32 [batch, 2] if asked for}, and the
        depths of its trainable variables.
    """
    model = backbone.model
    names = ("token_ids", "segment_ids", "padding_mask")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
    positions = keras.Input((None,), dtype="int32", name="positions")
    hidden = run_encoder(model, *inputs.values())[-1]
    outputs = {LOGITS: _name_hidden_pieces(backbone, hidden, positions)}
    if pairs:
        normal = keras.initializers.TruncatedNormal(stddev=0.02)
        classifier = keras.layers.Dense(2, kernel_initializer=normal, dtype="float32", name=PAIR_LOGITS)
        outputs[PAIR_LOGITS] = classifier(model.pooled_dense(hidden[:, model.cls_token_index]))
    network = keras.Model({**inputs, "positions": positions}, outputs, name="pretrainer")
    return network, find_depths(backbone, network.trainable_variables)


def _name_hidden_pieces(backbone: Backbone, hidden: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Logits over the vocabulary at the positions asked for; the output embeddings are the input embeddings."""
    settings = read_settings(backbone.model)
    head = MaskedLMHead(
        token_embedding=backbone.model.token_embedding,
        intermediate_activation=backbone.model.transformer_layers[0].activation,
        layer_norm_epsilon=settings.layer_norm_epsilon,
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        name=HEAD_NAME,
    )
    return keras.layers.Activation("linear", dtype="float32", name=LOGITS)(head(hidden, mask_positions=positions))
