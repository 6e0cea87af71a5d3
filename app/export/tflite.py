"""Export room: a model as TFLite files, built-in operators only, any batch and length."""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_quantizer import qtyping, quantizer

from app.config import ExportConfig, InputError, RunError
from app.export.early import make_early_module
from app.export.graph import InferenceModule
from app.export.metadata import ModelDescription, add_metadata, attach_files, give_unique_names, list_operators
from app.run.screen import quiet


@contextlib.contextmanager
def open_converter(concrete: Any) -> Iterator[tf.lite.TFLiteConverter]:
    """A converter for one function, from a SavedModel in a temporary folder that lives as long as the context.

    `TFLiteConverter.from_concrete_functions` makes the same folder, but where the folder cannot be written it goes
    another way without a word and loses the signature.

    What is saved holds the variables of the function and nothing else: of every Keras layer that a saved object
    reaches, TensorFlow would trace the calls anew, which takes longer than the conversion.

    Args:
        concrete: the function, which becomes the signature `serving_default`.

    Raises:
        tf.errors.OpError, OSError: the folder cannot be written.
    """
    holder = tf.Module()
    holder.held = list(concrete.variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(holder, folder, {"serving_default": concrete})
        yield tf.lite.TFLiteConverter.from_saved_model(folder)


# A tagger as TFLite files, built-in operators only, any batch and length.
#
# float32, float16 as the names say int8 int8 weights with a scale an output channel, activations quantized while
# running ("dynamic"); int8 embedding tables with a scale a row int4 int4 weights with a scale for each block, the same
# for the embedding tables full_int8 int8 weights and activations, ranges from representative rows
#
# Converted by TensorFlow, quantized by ai-edge-quantizer; they are to be run by LiteRT.


SMALL_UNREAD = -20.0  # full_int8: exp(-20) is 0 for softmax, and the scores keep a fine enough scale
Rows = Iterable[dict[str, np.ndarray]]
_Operation = qtyping.TFLOperationName
_Granularity = qtyping.QuantGranularity


class TFLiteWriter:
    """Makes the files of one tagger; converted graphs are kept, since several files share them.

    Args:
        tagger: a loaded tagger.
        config: section `export`.
        boundary_ids: ids of `[CLS]` and `[SEP]`.
        representative: makes rows for `full_int8`, {name of an input: int32 [1, length]}.
        about: what the metadata inside the files says; None = they have none.
        threshold: at which texts leave the files with exits early, see `EarlyModule`.
    """

    def __init__(
        self,
        tagger: Any,
        config: ExportConfig,
        *,
        boundary_ids: tuple[int, int],
        representative: Callable[[], Rows],
        about: ModelDescription | None = None,
        threshold: float = 0.0,
    ) -> None:
        self._tagger = tagger
        self._config = config
        self._boundary_ids = boundary_ids
        self._representative = representative
        self._about = about
        self.threshold = threshold
        self._converted: dict[tuple[str, bool, bool], bytes] = {}

    def write(self, format_name: str) -> bytes:
        """The content of a file.

        Raises:
            InputError: int4, and a width is not a multiple of the block.
            RunError: the file would need operators that not every runtime has.
        """
        content = WRITERS[format_name](self)
        foreign = [name for name in list_operators(content) if name.startswith("custom:")]
        if foreign:
            raise RunError(f"{format_name}.tflite needs operators that are not built in: {', '.join(foreign)}")
        return attach_files(content, self._about.files) if self._about else content

    def float32(self) -> bytes:
        return self._convert("float")

    def float32_early(self) -> bytes:
        return self._convert("float", early=True)

    def int8_early(self) -> bytes:
        table = self._convert(self._config.int8_table, early=True)
        return self._quantize(table, bits=8, granularity=_Granularity.CHANNELWISE)

    def float16(self) -> bytes:
        return self._convert("float", half=True)

    def int8(self) -> bytes:
        return self._quantize(self._convert(self._config.int8_table), bits=8, granularity=_Granularity.CHANNELWISE)

    def int4(self) -> bytes:
        granularity = _Granularity[f"BLOCKWISE_{self._config.block_size}"]
        return self._quantize(
            self._convert(self._config.int4_table, fill=self._config.block_size), bits=4, granularity=granularity
        )

    def full_int8(self) -> bytes:
        worker = quantizer.Quantizer(bytearray(self._convert("float", unread=SMALL_UNREAD)))
        for operation in (_Operation.FULLY_CONNECTED, _Operation.BATCH_MATMUL, _Operation.SOFTMAX, _Operation.GELU):
            worker.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=8)
        with quiet():
            ranges = worker.calibrate({"serving_default": list(self._representative())})
            return bytes(worker.quantize(ranges).quantized_model)

    def _convert(
        self, table: str, *, half: bool = False, early: bool = False, fill: int = 1, unread: float | None = None
    ) -> bytes:
        """The converted graph; `fill`: kernels in int4 are cut into blocks of so many rows without a rest."""
        key = (f"{table}{fill}{unread}", half, early)
        if key not in self._converted:
            options: dict[str, Any] = {} if unread is None else {"unread": unread, "one_product": False}
            make_module = partial(make_early_module, threshold=self.threshold) if early else InferenceModule
            module = make_module(
                self._tagger,
                table=table,
                block=self._config.block_size,
                fill=fill,
                product_width=self._config.product_width,
                boundary_ids=self._boundary_ids,
                **options,
            )
            if module.undivided_widths():
                widths = ", ".join(map(str, module.undivided_widths()))
                raise InputError(
                    f"export.block_size must divide all widths of the network for int4, received "
                    f"{self._config.block_size} and {widths}: leave int4 out of export.formats"
                )
            with quiet(), open_converter(module.concrete()) as converter:
                if half:
                    converter.optimizations = [tf.lite.Optimize.DEFAULT]
                    converter.target_spec.supported_types = [tf.float16]
                content = give_unique_names(converter.convert())
            self._converted[key] = content
        # Before the file is quantized: the quantizer lays out the weights, which must then stay where they are.
        content = self._converted[key]
        return add_metadata(content, self._about) if self._about else content

    def _quantize(self, content: bytes, *, bits: int, granularity: qtyping.QuantGranularity) -> bytes:
        worker = quantizer.Quantizer(bytearray(content))
        worker.add_dynamic_config(".*", _Operation.FULLY_CONNECTED, bits, granularity)
        with quiet():
            return bytes(worker.quantize().quantized_model)


WRITERS: dict[str, Callable[[TFLiteWriter], bytes]] = {
    "float32": TFLiteWriter.float32,
    "float16": TFLiteWriter.float16,
    "int8": TFLiteWriter.int8,
    "int4": TFLiteWriter.int4,
    "full_int8": TFLiteWriter.full_int8,
    "float32_early": TFLiteWriter.float32_early,
    "int8_early": TFLiteWriter.int8_early,
}
EARLY = ("float32_early", "int8_early")  # of models with exits only; one text at a time leaves early
