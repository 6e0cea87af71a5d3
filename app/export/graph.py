"""Export room: the network of a tagger for inference in TFLite, with embedding tables in any precision.

The forward pass is that of `app/encoder/forward.py`; what is here is how its operations are computed. The tests compare
it with the Keras network, and every export is scored before it is kept.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from app.config import InputError
from app.data.packing import FEATURES
from app.encoder.forward import (
    Arithmetic,
    Chosen,
    Reading,
    Replace,
    attend,
    compare_windows,
    compute_positions,
    run_encoder,
    run_layer,
    split_heads,
)
from app.encoder.parts import AttentionParts, attention_parts_of, parts_of
from app.encoder.relative import RelativeBias
from app.tasks.network import compute_segments

CODES = 256  # vectors of a place in product quantization: one byte
KMEANS_ROUNDS = 15
UNREAD = -1e9  # added to the attention score of a piece that must not be read


class InferenceModule(tf.Module):
    """A model for export: packed rows -> logits, and what its task makes of them.

    Args:
        tagger: a loaded tagger (`app/tasks/network.py`); its weights are copied as constants.
        table: precision of the embedding tables, a key of `LOOKUPS`.
        block: numbers that share a scale in an int4 table.
        fill: the width of kernels is filled up to a multiple of this (kernels in int4).
        product_width: numbers that share a byte in a table of product quantization.
        boundary_ids: ids of `[CLS]` and `[SEP]`.
        unread: see `UNREAD`; full-integer models need a small one, or their scores have no resolution left.
        one_product: see `ConstantArithmetic`; full-integer models need several.
    """

    def __init__(
        self,
        tagger: Any,
        *,
        table: str,
        block: int,
        boundary_ids: tuple[int, int],
        fill: int = 1,
        product_width: int = 3,
        unread: float = UNREAD,
        one_product: bool = True,
    ) -> None:
        super().__init__()
        self._backbone = tagger.backbone.model
        self._head = tagger.head
        self._boundary_ids = boundary_ids
        self.labels = tuple(tagger.labels)
        self._model = tagger
        make_tokens = LOOKUPS[table]
        make_positions = LOOKUPS["int4" if table == "product" else table]  # too few rows to share anything
        positions = self._backbone.position_embedding.position_embeddings.numpy()
        segments = self._backbone.segment_embedding.embeddings.numpy()
        segment = segments[:1]  # every piece is in segment 0, apart from the second texts of pairs
        self._second_segment = None
        if tagger.task.segments(tagger.facts):
            self._second_segment = tf.constant(np.stack([np.zeros_like(segment[0]), segments[1] - segment[0]]))
        self._arithmetic = ConstantArithmetic(
            tokens=make_tokens(
                self._backbone.token_embedding.embeddings.numpy(), block=block, product_width=product_width
            ),
            positions=make_positions(positions + segment, block=block),
            multiple=fill,
            unread=unread,
            one_product=one_product,
        )
        self._shapes = None if tagger.shapes is None else tf.constant(tagger.shapes.embeddings.numpy())

    def undivided_widths(self) -> list[int]:
        """Widths of kernels that cannot be cut into blocks: of the network, and of a layer's heads together."""
        layers = [parts_of(layer).attention_parts for layer in self._backbone.transformer_layers]
        widths = {self._backbone.hidden_dim, *(each.width for each in layers)}
        return sorted(width for width in widths if width % self._arithmetic.multiple)

    def compute_logits(self, token_ids: tf.Tensor, shape_ids: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Int32 [batch, length] three times -> logits float32 [batch, length, labels]."""
        return self._ask(self._head, self._run(token_ids, shape_ids, windows), windows)

    def _ask(self, head: Any, states: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Logits of a head, float32 [batch, length, labels]."""
        logits = head.infer(states, compare_windows(windows))
        return tf.reshape(logits, tf.concat([tf.shape(windows), [len(self.labels)]], axis=0))

    def _run(
        self, token_ids: tf.Tensor, shape_ids: tf.Tensor, windows: tf.Tensor, *, depth: int | None = None
    ) -> tf.Tensor:
        """Hidden states after some of the layers, None = all: float32 [batch * length, width]."""
        added = None if self._shapes is None else tf.gather(self._shapes, shape_ids)
        if self._second_segment is not None:
            segments = compute_segments(token_ids, windows, self._boundary_ids[1])
            rest = tf.gather(self._second_segment, segments)
            added = rest if added is None else added + rest
        states = run_encoder(
            self._backbone,
            token_ids,
            tf.zeros_like(token_ids),
            windows,
            added=added,
            depth=depth,
            arithmetic=self._arithmetic,
            training=False,
        )
        return states[-1]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, all int32 [batch, length]."""
        unit_input = self._model.task.unit_input
        return (*FEATURES, unit_input) if unit_input else FEATURES

    def answer(self, *inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """The exported function: `inputs` to the outputs of the task.

        `padding_mask` is 0 for padding and otherwise the number of the window a piece belongs to.
        """
        named = dict(zip(self.inputs, inputs, strict=True))
        logits = self.compute_logits(*(named[name] for name in FEATURES))
        return self._model.task.finish_graph(self._model, logits, named, self._boundary_ids)

    def concrete(self) -> Any:
        """The exported function, traced for any batch and length."""
        spec = [tf.TensorSpec([None, None], tf.int32, name=name) for name in self.inputs]
        return tf.function(self.answer, input_signature=spec, autograph=False).get_concrete_function()


def _array(variable: tf.Variable) -> np.ndarray:
    """The value of a weight, also while a graph is being built: exported weights are constants."""
    with tf.init_scope():
        return variable.numpy()


class ConstantArithmetic(Arithmetic):
    """The operations of an encoder as TFLite runs them best, on weights that are constants.

    In the layers, hidden states are laid out row after row, [batch * length, width], so that every product is one of
    two matrices (`FULLY_CONNECTED`); nothing is dropped; attention scores are scaled in the query weights.

    Args:
        tokens: looks up word pieces.
        positions: looks up the sum of position and segment embeddings.
        multiple: the width of a feed-forward network is filled up to a multiple of this.
        unread: see `UNREAD`.
        one_product: queries, keys and values come from one product. Not where a tensor has one scale: theirs differ.
    """

    def __init__(
        self, *, tokens: "Lookup", positions: "Lookup", multiple: int, unread: float, one_product: bool = True
    ) -> None:
        self.multiple, self._one_product = multiple, one_product
        self._tokens, self._positions, self._unread = tokens, positions, unread

    def embed(
        self, model: Any, tokens: tf.Tensor, segments: tf.Tensor, windows: tf.Tensor, *, replace: Replace
    ) -> list[tf.Tensor]:
        return [self._tokens(tokens), self._positions(compute_positions(windows))]

    def add(self, model: Any, parts: Sequence[tf.Tensor], added: tf.Tensor | None) -> tf.Tensor:
        tokens, positions = parts
        return tokens + positions if added is None else tokens + positions + added

    def enter(self, model: Any, x: tf.Tensor, *, training: bool | None) -> tf.Tensor:
        return tf.reshape(x, [-1, x.shape[-1]])

    def mask(self, windows: tf.Tensor) -> tf.Tensor:
        """What is added to attention scores, float32 [batch, 1, length, length]."""
        return tf.expand_dims((1.0 - tf.cast(compare_windows(windows), tf.float32)) * self._unread, 1)

    def relate(self, bias: RelativeBias, windows: tf.Tensor) -> tf.Tensor:
        by_distance = _array(bias.table)[bias.distance_buckets()]  # [2 * positions - 1, heads]
        at = tf.range(tf.shape(windows)[1])
        distances = at[tf.newaxis] - at[:, tf.newaxis]
        distances = tf.clip_by_value(distances, 1 - bias.positions, bias.positions - 1)  # several texts in one row
        return tf.gather(tf.constant(by_distance.T), distances + (bias.positions - 1), axis=1)

    def run(self, layer: Any, x: tf.Tensor, mask: Any, *, training: bool | None) -> tf.Tensor:
        return run_layer(layer, x, mask, arithmetic=self, training=training)

    def attend(
        self, attention: Any, asking: tf.Tensor, states: tf.Tensor, mask: Any, *, training: bool | None
    ) -> tf.Tensor:
        parts = attention_parts_of(attention)
        batch = tf.shape(mask.may_read if isinstance(mask, Reading) else mask)[0]
        return attend(parts, asking, states, mask, batch=batch, arithmetic=self, training=training)

    def project(
        self, askers: tf.Tensor, pieces: tf.Tensor, attention: AttentionParts, *, batch: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Products of the same states are one product: an int8 file rounds them once, and it is wide enough to pay."""
        query, *read = zip(attention.projections[:3], (1 / math.sqrt(attention.size), 1.0, 1.0), strict=True)
        if not self._one_product:
            found = [_multiply(askers, query), *(_multiply(pieces, each) for each in read)]
        elif askers is pieces:
            found = tf.split(_multiply(pieces, query, *read), 3, axis=1)
        else:
            found = [_multiply(askers, query), *tf.split(_multiply(pieces, *read), 2, axis=1)]
        queries, keys, values = (split_heads(each, attention, batch) for each in found)
        return queries, keys, values

    def product(self, x: tf.Tensor, dense: Any) -> tf.Tensor:
        """A projection of the attention."""
        return _multiply(x, (dense, 1.0))

    def weigh(
        self, attention: AttentionParts, scores: tf.Tensor, mask: Any, *, training: bool | None
    ) -> tf.Tensor:
        if isinstance(mask, Reading):  # one after the other: their sum has no resolution left in 8 bits
            mask, scores = mask.may_read, scores + mask.bias_of(attention)
        return tf.nn.softmax(scores + mask)

    def expand(self, x: tf.Tensor, inner: Any) -> tf.Tensor:
        more = -inner.kernel.shape[1] % self.multiple  # columns that nothing reads; zeros would have no scale
        kernel = np.pad(_array(inner.kernel), [(0, 0), (0, more)], mode="wrap")
        return _activation(inner.activation)(tf.matmul(x, kernel) + np.pad(_array(inner.bias), (0, more)))

    def contract(self, x: tf.Tensor, outer: Any) -> tf.Tensor:
        more = -outer.kernel.shape[0] % self.multiple
        return tf.matmul(x, np.pad(_array(outer.kernel), [(0, more), (0, 0)])) + _array(outer.bias)

    def normalise(self, x: tf.Tensor, norm: Any) -> tf.Tensor:
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return centred * tf.math.rsqrt(variance + norm.epsilon) * _array(norm.gamma) + _array(norm.beta)

    def drop(self, x: tf.Tensor, dropout: Any, *, training: bool | None) -> tf.Tensor:
        return x

    def choose(self, places: "Places", windows: tf.Tensor) -> Chosen:
        return _ChosenOfOneRow(places)


class Places(NamedTuple):
    """Some of the pieces of one row.

    Attributes:
        numbers: int32 [chosen], ascending.
        order: int32 [length], where each piece is in a list of all pieces followed by the chosen ones: what was not
            chosen in its old place, what was in its new one.
    """

    numbers: tf.Tensor
    order: tf.Tensor


def find_places(chosen: tf.Tensor) -> Places:
    """Bool [length]; where nothing is chosen, the first piece is, since no kernel of a branch takes empty tensors."""
    length = tf.size(chosen)
    chosen |= tf.equal(tf.range(length), 0) & ~tf.reduce_any(chosen)
    numbers = tf.cast(tf.where(chosen)[:, 0], tf.int32)
    return Places(numbers, tf.where(chosen, length - 1 + tf.cumsum(tf.cast(chosen, tf.int32)), tf.range(length)))


class _ChosenOfOneRow(Chosen):
    """Pieces of a batch of one row, whose states are laid out as [length, width].

    Whatever depends on them has a shape that their number alone decides. In a branch of a graph, to which they are
    inputs, no tensor is then of a shape that only running it tells, and XNNPACK computes all of it.
    """

    def __init__(self, places: Places) -> None:
        self._places = places

    def asking(self, values: tf.Tensor) -> tf.Tensor:
        return tf.gather(values, self._places.numbers)

    def asking_mask(self, mask: Any) -> Any:
        """Float32 [1, 1, length, length] -> [1, 1, chosen, length]."""
        if isinstance(mask, Reading):
            return Reading(self.asking_mask(mask.may_read), tf.gather(mask.bias, self._places.numbers, axis=1))
        return tf.gather(mask, self._places.numbers, axis=2)

    def pick(self, values: tf.Tensor) -> tf.Tensor:
        return values

    def spread(self, states: tf.Tensor, moved: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.concat([states, moved], axis=0), self._places.order)


def _multiply(x: tf.Tensor, *projections: tuple[Any, float]) -> tf.Tensor:
    """Projections of the attention, each times a number, side by side: [pieces, inputs] -> [pieces, outputs of all]."""
    biases = [_array(dense.bias).reshape(-1) * np.float32(factor) for dense, factor in projections]
    kernels = [
        (_array(dense.kernel) * np.float32(factor)).reshape(-1, bias.size)
        for (dense, factor), bias in zip(projections, biases, strict=True)
    ]
    return tf.matmul(x, np.concatenate(kernels, axis=1)) + np.concatenate(biases)


def _activation(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """GELU, exact or by tanh as the backbone has it, in the form that TFLite knows as one operation."""
    exact = "approximate" not in getattr(function, "__name__", "")
    return lambda x: tf.nn.gelu(x, approximate=not exact)


# Embedding tables as TFLite holds them: float, int8 with a scale per row, int4 with a scale per block, and product
# quantization with a byte for several numbers.
#
# TFLite quantizes the matrices of a network but leaves embedding tables, half of a small BERT, in float32 or gives the
# whole table one scale. Here a table is stored as integers and looked up before it is scaled, so only the rows in use
# become floats.


Lookup = Callable[[tf.Tensor], tf.Tensor]  # ids int32 [...] -> float32 [..., width]


def make_float_lookup(table: np.ndarray, *, block: int = 0, product_width: int = 0) -> Lookup:
    """The table as it is, float32 [rows, width]."""
    constant = tf.constant(table)
    return lambda ids: tf.gather(constant, ids)


def make_int8_lookup(table: np.ndarray, *, block: int = 0, product_width: int = 0) -> Lookup:
    """Symmetric int8, one scale a row."""
    scales = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
    integers = tf.constant(np.rint(table / scales).astype(np.int8))
    scale_column = tf.constant(scales.astype(np.float32))
    return lambda ids: tf.cast(tf.gather(integers, ids), tf.float32) * tf.gather(scale_column, ids)


def make_int4_lookup(table: np.ndarray, *, block: int, product_width: int = 0) -> Lookup:
    """Symmetric int4, two numbers in a byte; a block's scale is an int8 part of the float32 scale of its row.

    The first half of a row is in the low, the second in the high four bits, so unpacking needs no interleaving. A width
    that does not divide into blocks is kept in int8.
    """
    rows, width = table.shape
    if width % 2 or width % block:
        return make_int8_lookup(table)
    blocks = table.reshape(rows, width // block, block)
    wanted = np.maximum(np.abs(blocks).max(axis=2), 1e-12) / 7  # [rows, blocks]
    row_scales = wanted.max(axis=1, keepdims=True) / 127
    parts = np.ceil(wanted / row_scales).clip(1, 127)
    scales = (parts * row_scales)[..., np.newaxis]
    integers = np.rint(blocks / scales).clip(-7, 7).astype(np.int16).reshape(rows, width) + 8  # 1 .. 15
    low, high = integers[:, : width // 2], integers[:, width // 2 :]
    packed = tf.constant((low + 16 * high - 128).astype(np.int8))
    part_table, row_table = tf.constant(parts.astype(np.int8)), tf.constant(row_scales.astype(np.float32))

    def lookup(ids: tf.Tensor) -> tf.Tensor:
        both = tf.cast(tf.gather(packed, ids), tf.float32) + 128.0  # [..., width / 2], exact
        upper = tf.floor(both * (1 / 16))
        numbers = tf.concat([both - 16.0 * upper, upper], axis=-1) - 8.0
        per_block = tf.cast(tf.gather(part_table, ids), tf.float32) * tf.gather(row_table, ids)
        shape = tf.shape(ids)
        spread = tf.reshape(numbers, tf.concat([shape, [width // block, block]], axis=0))
        return tf.reshape(spread * tf.expand_dims(per_block, -1), tf.concat([shape, [width]], axis=0))

    return lookup


@lru_cache(maxsize=1)  # the int8 and the int4 file of a model have the same table, which takes a minute
def _find_codes(table: bytes, width: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For a float32 table: uint8 [rows, parts], the vectors that stand for it float32 [parts, CODES, size]."""
    numbers = np.frombuffer(table, np.float32).reshape(-1, width // size, size)
    codes = np.empty(numbers.shape[:2], np.uint8)
    vectors = np.zeros((width // size, CODES, size), np.float32)
    for part in range(width // size):
        distinct, places = np.unique(numbers[:, part], axis=0, return_inverse=True)
        if len(distinct) <= CODES:  # of a table that was clustered, or most of whose rows are alike
            codes[:, part], vectors[part, : len(distinct)] = places.reshape(-1), distinct
            continue
        found = KMeans(CODES, init="random", n_init=1, max_iter=KMEANS_ROUNDS, random_state=part)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer than 256 clusters are found
            codes[:, part] = found.fit_predict(numbers[:, part])
        vectors[part] = _mend_centers(found.cluster_centers_, numbers[:, part], codes[:, part])
    return codes, vectors


def _mend_centers(centers: np.ndarray, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Centres of clusters as scikit-learn gives them, if each has a member; else the means of their members.

    Where clusters are left empty, scikit-learn 1.9 moves them about and takes what they had from the centres of others,
    which then are far from all members.
    """
    counts = np.bincount(codes, minlength=len(centers))[:, np.newaxis]
    if counts.all():
        return centers
    sums = np.zeros(centers.shape, np.float64)
    np.add.at(sums, codes, numbers)
    return (sums / np.maximum(counts, 1)).astype(np.float32)


def make_product_lookup(table: np.ndarray, *, block: int = 0, product_width: int) -> Lookup:
    """Product quantization (Jegou et al. 2011): a row is cut into parts of `product_width` numbers, a part is one byte.

    The byte is the number of the nearest of 256 vectors, found for each place of a part by k-means over all rows and
    held in int8 with a scale for each place. A width that does not divide into parts is kept in int8, and so is a table
    of so few rows that it would not become smaller.

    Raises:
        InputError: a row is not of finite numbers; the vectors are shared, so it would spoil those of others.
    """
    rows, width = table.shape
    if width % product_width or rows <= 2 * CODES:
        return make_int8_lookup(table)
    spoiled = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(spoiled):
        raise InputError(
            f"export.int8_table and export.int4_table must not be product for this model: the embeddings of "
            f"{len(spoiled):,} of its {rows:,} word pieces are not finite numbers, first those of line "
            f"{spoiled[0] + 1:,} of model/vocab.txt; int8 keeps them apart, a training that goes well has none"
        )
    parts = width // product_width
    codes, vectors = _find_codes(table.tobytes(), width, product_width)
    scales = np.maximum(np.abs(vectors).max(axis=(1, 2)), 1e-12) / 127  # [parts]
    integers = np.rint(vectors / scales[:, np.newaxis, np.newaxis]).astype(np.int8)
    code_table, vector_table = tf.constant(codes), tf.constant(integers.reshape(parts * CODES, product_width))
    offsets = tf.constant(np.arange(parts, dtype=np.int32) * CODES)
    scale_column = tf.constant(scales.astype(np.float32)[:, np.newaxis])

    def lookup(ids: tf.Tensor) -> tf.Tensor:
        at = tf.cast(tf.gather(code_table, ids), tf.int32) + offsets  # [..., parts]
        numbers = tf.cast(tf.gather(vector_table, at), tf.float32) * scale_column
        return tf.reshape(numbers, tf.concat([tf.shape(ids), [width]], axis=0))

    return lookup


LOOKUPS: dict[str, Callable[..., Lookup]] = {
    "float": make_float_lookup,
    "int8": make_int8_lookup,
    "int4": make_int4_lookup,
    "product": make_product_lookup,
}
