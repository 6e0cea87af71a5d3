"""Tasks room: the way from raw text to entities inside a TensorFlow graph, around a network and a decoder.

The same steps as `--mode=predict` takes on arrays: words, sentences, windows, tags, entities with character offsets.
"""

from collections.abc import Callable, Collection
from typing import Any

import tensorflow as tf

from app.data.graph_rows import GraphRows, Stream, Windows, run_words
from app.tasks.tagging.encoding import SentenceEncoder
from app.tasks.tagging.graph_names import GraphNames
from app.text.graph_sentences import GraphSentences, number_parts
from app.text.graph_words import GraphShapes, GraphWords, changes

# features, places int32 [scored, 2] as window and piece, windows ascending -> logits float32 [scored, labels]
Network = Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]
# emissions float32 [words, labels], bool [words] where sentences begin -> (label ids, probabilities) [words]
Decode = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]



# What `GraphTagger` gives.
TEXT_OUTPUTS: dict[str, dict[str, Any]] = {
    "count": {"type": "int32", "shape": ["batch"], "meaning": "entities of each text"},
    "label": {"type": "string", "shape": ["batch", "most"], "meaning": "type; empty after the last entity"},
    "start": {"type": "int32", "shape": ["batch", "most"], "meaning": "first character"},
    "end": {"type": "int32", "shape": ["batch", "most"], "meaning": "one after the last character"},
    "score": {"type": "float32", "shape": ["batch", "most"], "meaning": "probability of its least sure word"},
}


class GraphTagger:
    """Finds the entities of texts inside a graph.

    Args:
        encoder: vocabulary, labels and row length of the model.
        network: the tagger, asked for the first pieces of words alone.
        decode: emissions to label ids.
        split_sentences: whether texts are split into sentences first.
        longest_sentence: words; longer sentences are cut.
        non_names: entity types that need be no names, see `names.find_names`.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        network: Network,
        decode: Decode,
        *,
        split_sentences: bool,
        longest_sentence: int,
        non_names: Collection[str] = (),
    ) -> None:
        self._words, self._sentences, self._shapes = GraphWords(), GraphSentences(), GraphShapes()
        self._rows = GraphRows(encoder)
        self._network, self._decode = network, decode
        self._by_document, self._split = encoder.by_document, split_sentences
        self._longest = longest_sentence
        self._labels = encoder.labels
        self._names = GraphNames(encoder.labels, non_names)

    def __call__(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Entities of texts of any length, padded to the text with the most of them.

        Args:
            texts: string [texts].

        Returns:
            `count` int32 [texts]; `label` string, `start` and `end` int32, `score` float32 [texts, entities], padded
            with empty strings and zeros. Offsets count Unicode characters of the text as given.
        """
        words = self._words(texts)
        letters = tf.ragged.range(words.starts, words.ends)
        letters = letters.with_flat_values(tf.gather(words.codes, letters.flat_values))
        spelled = tf.strings.unicode_encode(letters, "UTF-8")
        first_of_text = changes(words.texts)
        begins = self._sentences(words, spelled) if self._split else first_of_text
        begins = number_parts(begins, self._longest)
        shapes = self._shapes(words.types, words.starts, words.ends)
        stream = self._rows.encode(spelled, shapes, begins)
        windows = self._rows.cut(stream, begins, first_of_text if self._by_document else begins)
        tags, chances = self._decode(self._emissions(stream, windows, tf.size(begins)), begins)
        return self._names(words, spelled, begins, tags, chances, tf.size(texts))

    def _emissions(self, stream: Stream, windows: Windows, words: tf.Tensor) -> tf.Tensor:
        """Logits of the first piece of every word, float32 [words, labels]."""
        return run_words(self._rows, stream, windows, self._network, words=words, labels=len(self._labels))
