"""Modes room: exported models behind HTTP on this machine. Imports no TensorFlow unless a SavedModel is served."""

import os
import sys

from app.feedback.store import open_store
from app.run.directory import Request
from app.serving import corrections, label_studio, promotion, review  # noqa: F401  they add their routes
from app.serving.http import log
from app.serving.listening import Listener
from app.serving.models import ServedModel
from app.serving.runs import find_runs, name_runs, plan_versions
from app.serving.server import ModelServer, find_key


def run(request: Request) -> dict[str, float]:
    """Serves until it is interrupted."""
    server = build_server(request)
    config = request.config.serve
    listener = Listener(server, host=config.host, port=config.port)
    server.on_ready = lambda: _tell(f"{listener.url}/ is ready; Ctrl-C ends it")
    listener.run()
    return {}


def build_server(request: Request) -> ModelServer:
    """The server of a request, its models not yet loaded.

    Raises:
        InputError: a run has nothing to serve.
    """
    config = request.config.serve
    threads = config.threads or os.cpu_count() or 1
    runs = name_runs(find_runs(config, request.run_dir), config)
    plans = [plan_versions(run, config) for run in runs.values()]
    if any(source.runtime == "saved_model" for plan in plans for source in plan.sources.values()):
        _tell("serve: loading TensorFlow ...")
        from app import one_keras as _first  # noqa: F401  before anything else that brings a Keras in
    # Settings of the command line other than those of `serve` count for the first run.
    models = [
        ServedModel(
            name,
            run,
            config=request.config if number == 0 else run.read_config(),
            settings=config,
            threads=threads,
            say=lambda text: log({"event": "versions", "message": text}),
        )
        for number, (name, run) in enumerate(runs.items())
    ]
    whole = request.config
    if whole.feedback.url:  # what is wrong with it is told now, not to the first who corrects something
        open_store(whole.feedback.url, request.run_dir.path).close()
    return ModelServer(config, models, api_key=find_key(config), feedback=whole.feedback, update=whole.update)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
