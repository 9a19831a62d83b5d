"""The same behind LitServe with batching, on OpenVINO in full precision: decode and transform as the plain server's."""

from __future__ import annotations

import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import litserve
import numpy as np
import timm
import torch
from PIL import Image

from labelloop.config.telemetry import tell_nobody


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """A request is a list of tasks, as Label Studio sends them; requests are batched."""

    def setup(self, device: str) -> None:
        tell_nobody()
        import openvino

        name, file = os.environ["BENCH_NETWORK"], os.environ.get("BENCH_FILE", "")
        overlay = {"pretrained_cfg_overlay": {"file": file}} if file else {}
        model = timm.create_model(name, pretrained=bool(file), num_classes=1000 if file else 0, **overlay).eval()
        model.reset_classifier(3)
        config = timm.data.resolve_model_data_config(model)
        self.transform = timm.data.create_transform(**config, is_training=False)
        side = config["input_size"][-1]
        graph = openvino.convert_model(
            model, example_input=torch.zeros(2, 3, side, side), input=[openvino.PartialShape([-1, 3, side, side])]
        )
        self.request = (
            openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        )
        self.pool = ThreadPoolExecutor(8)
        self.s3 = boto3.client(
            "s3", endpoint_url=os.environ["LABELLOOP_S3_ENDPOINT"], region_name="us-east-1",
            aws_access_key_id=os.environ["LABELLOOP_S3_ACCESS_KEY"],
            aws_secret_access_key=os.environ["LABELLOOP_S3_SECRET_KEY"],
        )  # fmt: skip

    def _one(self, task: dict[str, Any]) -> np.ndarray[Any, Any]:
        bucket, _, key = task["data"]["image"].removeprefix("s3://").partition("/")
        image = Image.open(io.BytesIO(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())).convert("RGB")
        return np.asarray(self.transform(image).numpy())

    def decode_request(self, request, **_):  # type: ignore[no-untyped-def] # LitServe reads annotations its own way
        return list(self.pool.map(self._one, request["tasks"]))

    def batch(self, inputs: list[Any]) -> Any:
        self.sizes = [len(images) for images in inputs]
        return np.stack([image for images in inputs for image in images])

    def predict(self, x: Any, **_: Any) -> Any:
        parts = [self.request.infer([x[i : i + 8]])[0].copy() for i in range(0, len(x), 8)]
        logits = np.concatenate(parts)
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exp / exp.sum(axis=1, keepdims=True)

    def unbatch(self, output: Any) -> Any:
        ends = np.cumsum(self.sizes)
        return [output[end - size : end] for size, end in zip(self.sizes, ends, strict=True)]

    def encode_response(self, output: Any, **_: Any) -> Any:
        return {"results": [{"label": int(row.argmax()), "score": float(row.max())} for row in output]}


if __name__ == "__main__":
    api = Classifier(max_batch_size=16, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        port=int(sys.argv[1]), generate_client_file=False
    )
