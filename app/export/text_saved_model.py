"""Export room: a tagger put together as a SavedModel that takes raw strings."""

from collections.abc import Callable
from pathlib import Path

from app.config import PredictConfig
from app.data.encoding import Encoder
from app.export.graph_text import GraphTagger
from app.export.saved_model import export_saved_model
from app.tasks.network import Tagger, build_word_network
from app.tasks.tagging.answers import LONGEST_SENTENCE_WORDS, find_non_names
from app.tasks.tagging.graph_decoding import GraphDecoder


def save_tagger_as_saved_model(
    tagger: Tagger,
    encoder: Encoder,
    config: PredictConfig,
    folder: Path,
    *,
    check: Callable[[Path], None] = lambda path: None,
) -> Path:
    """Writes `folder/N/`, which answers as `--mode=predict` does, and returns it.

    Args:
        tagger: the model.
        encoder: that belongs to it.
        config: whether texts are split into sentences, and what is no name.
        folder: `export/saved_model` of a run directory.
        check: looks at the complete export before it gets its name; what it raises, the export does not outlive.
    """
    graph = GraphTagger(
        encoder,
        build_word_network(tagger),
        GraphDecoder(tagger.head.decoding_scores()),
        split_sentences=config.split_sentences,
        longest_sentence=LONGEST_SENTENCE_WORDS,
        non_names=find_non_names(tagger, config),
    )
    return export_saved_model(folder, network=tagger.network, tag_texts=graph, check=check)
