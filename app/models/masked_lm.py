"""Models room: the masked-language-model head over the encoder of a tagger."""

from keras_nlp.layers import MaskedLMHead

from app.models.tagger import INPUT_NAMES, Tagger
from app.one_keras import keras

HEAD_NAME = "masked_lm_head"


def build_masked_lm(tagger: Tagger) -> tuple[keras.Model, dict[str, int]]:
    """A network that names hidden pieces, on the tagger's own encoder (Devlin et al. 2019, section 3.1).

    The output embeddings are the input embeddings.

    Returns:
        the network {token_ids, shape_ids, padding_mask: int32 [batch, length], positions: int32 [batch, hidden]} ->
        logits float32 [batch, hidden, vocabulary], and the depth of its variables by name.
    """
    backbone = tagger.backbone.model
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUT_NAMES}
    positions = keras.Input((None,), dtype="int32", name="positions")
    head = MaskedLMHead(
        token_embedding=backbone.token_embedding,
        intermediate_activation=keras.activations.gelu,
        layer_norm_epsilon=1e-12,
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        name=HEAD_NAME,
    )
    logits = head(tagger.encoder(inputs), mask_positions=positions)
    logits = keras.layers.Activation("linear", dtype="float32", name="masked_lm_logits")(logits)
    network = keras.Model({**inputs, "positions": positions}, logits, name="masked_lm")
    depths = tagger.layer_depths()
    top = max(depths.values())
    return network, {variable.name: depths.get(variable.name, top) for variable in network.trainable_variables}
