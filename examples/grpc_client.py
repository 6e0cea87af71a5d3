"""Entities of texts over gRPC, with `tensorflow-serving-api`.

python examples/grpc_client.py "Angela Merkel visited New York."
python examples/grpc_client.py --address=localhost:8500 < texts.txt      # one text a line
"""

import argparse
import json
import sys
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MESSAGE_BYTES = 64 * 2**20


def find_entities(texts: list[str], *, address: str, timeout_seconds: float = 60.0) -> list[list[dict[str, Any]]]:
    """The entities of each text: `{"start", "end", "label", "text", "score"}`, offsets in characters.

    Raises:
        grpc.RpcError: the server does not answer, or refuses the request.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "ner", "serving_default"
    request.inputs["text"].CopyFrom(tf.make_tensor_proto([text.encode("utf-8") for text in texts], tf.string))
    limits = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    with grpc.insecure_channel(address, options=limits) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request, timeout=timeout_seconds).outputs
    found = {name: tf.make_ndarray(outputs[name]) for name in ("count", "label", "start", "end", "score")}
    return [
        [
            {
                "start": int(found["start"][row, i]),
                "end": int(found["end"][row, i]),
                "label": found["label"][row, i].decode("utf-8"),
                "text": text[found["start"][row, i] : found["end"][row, i]],
                "score": float(str(found["score"][row, i])),  # as few digits as float32 has
            }
            for i in range(found["count"][row])
        ]
        for row, text in enumerate(texts)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Finds the entities of texts by TensorFlow Serving.")
    parser.add_argument("text", nargs="*", help="texts; without any, the lines of standard input")
    parser.add_argument("--address", default="localhost:8500")
    arguments = parser.parse_args()
    texts = arguments.text or [line.rstrip("\r\n") for line in sys.stdin]
    for text, entities in zip(texts, find_entities(texts, address=arguments.address) if texts else [], strict=True):
        print(json.dumps({"text": text, "entities": entities}, ensure_ascii=False))


if __name__ == "__main__":
    main()
