"""Settings of --mode=export."""

from __future__ import annotations

from dataclasses import dataclass

from app.config.options import option


@dataclass(frozen=True)
class ExportConfig:
    """Files for other runtimes. Each is scored on evaluation.split by its own runtime before it is kept."""

    formats: tuple[str, ...] = option(
        ("float32", "float16", "int8", "int4", "saved_model"),
        "what to export: precisions of TFLite files, two that a text leaves early (model.exit_layers), one that takes "
        "raw strings, the SavedModel for TensorFlow Serving",
        choices=(
            "float32", "float16", "int8", "int4", "full_int8", "float32_early", "int8_early", "int8_text",
            "saved_model",
        ),
    )
    max_f1_loss: float = option(
        0.5,
        "entity F1 an export may lose against the float model, in points of 100; refused is what loses more beyond "
        "chance (the whole 95 % interval of a paired bootstrap over sentences is above); 0 = any loss beyond chance",
        at_least=0,
        at_most=100,
    )
    block_size: int = option(
        32, "format=int4: weights that share a scale; 32, 64, 128 or 256", at_least=32, at_most=256
    )
    int8_table: str = option(
        "int8", "format=int8: precision of the embedding tables", choices=("float", "int8", "int4", "product")
    )
    int4_table: str = option("int4", "format=int4: the same", choices=("int8", "int4", "product"))
    product_width: int = option(
        3,
        "tables in product quantization: numbers that share one byte; it divides the width of the network, else the "
        "tables are kept in int8",
        at_least=2,
        at_most=16,
    )
    calibration_rows: int = option(
        64, "format=full_int8: rows of the training corpus that the ranges are read from", at_least=1
    )
    vectors: int = option(16, "sentences in the test vectors beside the files", at_least=1)
