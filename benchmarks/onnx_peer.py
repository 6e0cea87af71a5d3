"""A fine-tuned tagger's network in ONNX Runtime, float32 and dynamic int8, for `--mode=benchmark` (its
`benchmark.objective=frontier`); needs an environment of its own (benchmarks/README.md).

Takes the folder that mode writes: `config.json` and `model.safetensors` in the Hugging Face layout, with
`word_shape.weight` [shapes, width], `logits.weight` [labels, width] and `logits.bias` beside the encoder's tensors.
Transformers' BertModel is built on them, exported by PyTorch and quantized by ONNX Runtime, per channel. The `.onnx`
files stay in the folder for the next time. Then requests are answered on standard input, one JSON object per line:

    {"model": "int8", "batches": FILE.npz, "threads": 2, "calls": 3, "warm_up": 1}  -> {"seconds": S}, a pass's median
    {"model": "float32", "batches": FILE.npz, "threads": 2, "logits": FILE.npz}     -> {}
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

INPUTS = ("token_ids", "shape_ids", "padding_mask")


def export_float(folder: Path, target: Path) -> None:
    """Rebuilds the network in PyTorch and writes it for any batch and length."""
    import torch
    import transformers
    from safetensors.torch import load_file

    config = transformers.BertConfig.from_pretrained(folder, attn_implementation="eager")
    weights = load_file(folder / "model.safetensors")

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = transformers.BertModel(config, add_pooling_layer=False)
            encoder = {name: value for name, value in weights.items() if name.startswith(("embeddings.", "encoder."))}
            left = self.bert.load_state_dict(encoder, strict=False)
            missing = [name for name in left.missing_keys if not name.endswith("_ids")]
            if missing or left.unexpected_keys:
                raise SystemExit(f"the network does not fit BertModel: {missing} {left.unexpected_keys}")
            shapes = weights.get("word_shape.weight")
            self.shapes = None if shapes is None else torch.nn.Embedding.from_pretrained(shapes)
            self.logits = torch.nn.Linear(config.hidden_size, len(weights["logits.bias"]))
            self.logits.weight.data, self.logits.bias.data = weights["logits.weight"], weights["logits.bias"]

        def forward(self, token_ids, shape_ids, padding_mask):
            embedded = self.bert.embeddings.word_embeddings(token_ids)
            if self.shapes is not None:
                embedded = embedded + self.shapes(shape_ids)
            return self.logits(self.bert(inputs_embeds=embedded, attention_mask=padding_mask).last_hidden_state)

    ids = torch.ones((2, 16), dtype=torch.long)
    axes = {0: "batch", 1: "length"}
    torch.onnx.export(
        Network().eval(),
        (ids, ids, ids),
        str(target),
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_axes={name: axes for name in (*INPUTS, "logits")},
        opset_version=17,
        dynamo=False,
    )


def has_vnni() -> bool:
    """Whether the processor multiplies 8-bit numbers without the overflow that `reduce_range` is there to avoid."""
    try:
        return "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def make_models(folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.onnx" for name in ("float32", "int8")}
    if not all(path.is_file() for path in paths.values()):
        part = folder / "part.onnx"
        export_float(folder, part)
        os.replace(part, paths["float32"])
        quantize_dynamic(
            paths["float32"], part, weight_type=QuantType.QInt8, per_channel=True, reduce_range=not has_vnni()
        )
        os.replace(part, paths["int8"])
    return paths


class Sessions:
    """Inference sessions, made when they are first asked for."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self._paths, self._sessions = paths, {}

    def get(self, model: str, threads: int) -> onnxruntime.InferenceSession:
        if (model, threads) not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            self._sessions[model, threads] = onnxruntime.InferenceSession(
                str(self._paths[model]), options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[model, threads]


def load_batches(path: str) -> list[dict[str, np.ndarray]]:
    """Arrays `NUMBER/FEATURE` of an `.npz` as feeds, int64 as PyTorch's export wants them."""
    batches: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            number, _, name = key.partition("/")
            batches.setdefault(int(number), {})[name] = arrays[key].astype(np.int64)
    return [batches[number] for number in sorted(batches)]


def serve(sessions: Sessions, requests, answers) -> None:
    loaded: dict[str, list[dict[str, np.ndarray]]] = {}
    for line in requests:
        request = json.loads(line)
        session = sessions.get(request["model"], request["threads"])
        wanted = {each.name for each in session.get_inputs()}  # a network without word shapes has no input for them

        def run(batch, session=session, wanted=wanted):
            return session.run(None, {name: values for name, values in batch.items() if name in wanted})[0]

        path = request["batches"]
        if "logits" in request:
            found = [run(batch) for batch in load_batches(path)]
            np.savez(request["logits"], **{str(number): values for number, values in enumerate(found)})
            answer = {}
        else:
            if path not in loaded:
                loaded[path] = load_batches(path)
            seconds = []
            for number in range(request["warm_up"] + request["calls"]):
                began = time.perf_counter()
                for batch in loaded[path]:
                    run(batch)
                if number >= request["warm_up"]:
                    seconds.append(time.perf_counter() - began)
            answer = {"seconds": statistics.median(seconds)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the folder")
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes to standard error
    os.dup2(2, 1)
    paths = make_models(options.model)
    about = {
        "ready": True,
        "version": onnxruntime.__version__,
        "bytes": {name: path.stat().st_size for name, path in paths.items()},
    }
    answers.write(json.dumps(about) + "\n")
    answers.flush()
    serve(Sessions(paths), sys.stdin, answers)


if __name__ == "__main__":
    main()
