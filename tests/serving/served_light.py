"""What a process runs that must not import TensorFlow: a server of a run by its TFLite file, asked once."""

import json
import urllib.request

from app.config import Config, DataConfig, ServeConfig
from app.modes.serve import build_server
from app.run.directory import Request, RunDirectory
from app.serving.listening import listening


def serve_once(run):
    config = Config(
        data=DataConfig(max_length=32, overlap_tokens=8),
        serve=ServeConfig(runtime="tflite", tflite_file="float32", threads=1, access_log=False),
    )
    with listening(build_server(Request(config, RunDirectory(run)))) as url:
        body = json.dumps({"texts": ["Ada Smith met Bob in Rome ."]}).encode()
        with urllib.request.urlopen(f"{url}/entities", body, timeout=20) as response:
            return response.read().decode()
