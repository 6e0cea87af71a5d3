"""Modes room: the newest SavedModel of a run behind HTTP on this machine."""

import sys

from app.config import InputError
from app.config.rules import describe_taken_port
from app.evaluation.gate import mention_refusal
from app.evaluation.manifest import newest_version, read_about, versions
from app.evaluation.runtimes import load_version
from app.run.directory import Request
from app.run.screen import heartbeat
from app.serving.server import ModelServer
from app.tasks import find_task


def run(request: Request) -> dict[str, float]:
    """Serves until it is interrupted."""
    config, folder = request.config.serve, request.run_dir.saved_model
    mention_refusal(request.run_dir, "saved_model", there=bool(versions(folder)))
    path = newest_version(folder)
    about = read_about(path) or find_task("tagging").about(())
    with heartbeat(f"loading {path}"):
        model = load_version(path)
    try:
        server = ModelServer((config.host, config.port), model, about=about, version=int(path.name))
    except OSError as error:
        raise InputError(describe_taken_port(config.host, config.port, error)) from error
    with server:
        print(f"http://{config.host}:{server.server_address[1]}/ is ready; Ctrl-C ends it", file=sys.stderr, flush=True)
        server.serve_forever()
    return {}
