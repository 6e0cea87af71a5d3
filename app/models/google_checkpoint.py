"""Models room: backbones from the TensorFlow checkpoints of google-research/bert.

The converters in `official.nlp.tools` write checkpoints for tf-models-official's own encoder, which KerasNLP
cannot read, so the tensors are taken by their published names.
"""

import re
from pathlib import Path

import tensorflow as tf

from app.config import BackboneConfig, InputError
from app.models.bert import Backbone, make_bert_backbone
from app.models.checkpoint import fill_slots, read_bert_config
from app.models.checksums import check_sha256
from app.models.sources import find_prefix
from app.models.vocabulary import choose_lowercase, detect_lowercase, read_vocabulary
from app.paths import plain, real_names


def build_from_google_checkpoint(config: BackboneConfig) -> Backbone:
    """The encoder of a folder, or a prefix in one, with `bert_config.json` and `vocab.txt` beside it."""
    prefix = find_prefix(config.source)
    settings = read_bert_config(prefix.parent / "bert_config.json", config)
    vocabulary = read_vocabulary(prefix.parent / "vocab.txt", size=settings.vocabulary_size)
    lowercase = choose_lowercase(config.lowercase, detect_lowercase(vocabulary))
    data = Path(f"{prefix}.data-00000-of-00001")
    if not data.is_file():
        raise InputError(f"{data} is missing: a checkpoint is an .index and a .data file")
    check_sha256(data, config.sha256)
    model = make_bert_backbone(settings)
    try:
        reader = tf.train.load_checkpoint(plain(prefix))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        start = "" if "embeddings/word_embeddings" in shapes else "bert/"
        fill_slots(
            model,
            shapes,
            read=reader.get_tensor,
            find_name=lambda name: start + google_name(name),
            transposed=False,
            where=str(prefix),
        )
    except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
        raise InputError(f"{prefix} is truncated or not a TensorFlow checkpoint: {real_names(str(error))}") from None
    return Backbone(model, vocabulary, lowercase, config.source)


def google_name(name: str) -> str:
    """Google's name of a tensor from Hugging Face's, without the `bert/` prefix."""
    name = re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", name)
    name = re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", name)
    name = re.sub(r"_embeddings\.weight$", "_embeddings", name)
    name = re.sub(r"\.weight$", ".kernel", name)
    return re.sub(r"layer\.(\d+)", r"layer_\1", name).replace(".", "/")
