"""Settings of --mode=serve, which answers with what --mode=export wrote."""

from __future__ import annotations

from dataclasses import dataclass

from app.config.options import option


@dataclass(frozen=True)
class ServeConfig:
    """A server of exported models: TensorFlow Serving's REST API, entities and labels, health and metrics."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 = all: set serve.api_key, or guard it otherwise")
    port: int = option(8501, "port to listen on; 0 = any that is free", at_least=0, at_most=65535)
    allowed_hosts: tuple[str, ...] = option(
        (),
        "names under which the server may be asked (header Host, without port; *.example.com = all below it, * = any), "
        "such as that of a proxy in front of it; localhost and addresses always may. Empty = no other name if there is "
        "no key and serve.host is reached by this machine alone, as 127.0.0.1 is, so that no page can pass itself off "
        "as this server (DNS rebinding); else any name",
    )
    runs: tuple[str, ...] = option(
        (), "run directories to serve, each RUN or NAME=RUN where names must differ; empty = that of --run_dir"
    )
    runtime: str = option(
        "auto",
        "what computes: saved_model, or tflite, which starts in seconds and knows the built-in tasks; "
        "auto = tflite where the file is there, is of the stable version and the task is built in",
        choices=("auto", "saved_model", "tflite"),
    )
    tflite_file: str = option("int8", "runtime=tflite: name of the file in export/tflite without its ending")
    threads: int = option(0, "requests computed at the same time; 0 = as many as there are processors", at_least=0)
    max_batch: int = option(32, "texts computed together at most", at_least=1)
    queue_size: int = option(256, "requests that may wait for a model; more are refused with 429", at_least=1)
    deadline_ms: int = option(10_000, "a request that has no answer after this time ends with 504", at_least=1)
    target_latency_ms: int = option(
        0,
        "of a model with exits: while requests take longer, texts leave the network earlier, and later again when they "
        "take less than half of it: a SavedModel row by row of the table that validation stored, a TFLite file NAME by "
        "NAME_early beside it; 0 = always as exported",
        at_least=0,
    )
    max_f1_loss: float = option(
        1.0,
        "target_latency_ms: how much worse than the whole network, in points of 100 of the headline score, the answers "
        "under load may have been in validation (a TFLite file with exits that lost more is not used); "
        "predict.max_f1_loss counts if it is more",
        at_least=0,
        at_most=100,
    )
    max_body_bytes: int = option(4 * 2**20, "most bytes in a body, unpacked; a larger one ends with 413", at_least=1)
    api_key: str = option(
        "", "key that requests must bring (Authorization: Bearer KEY); empty = the variable APP_API_KEY, else none",
        secret=True,
    )
    access_log: bool = option(True, "a JSON line on stderr for each request, without its texts")
    log_texts: bool = option(False, "write the texts of requests into these lines too")
    reload_seconds: int = option(5, "how often new versions and labels are looked for; 0 = never", at_least=0)
