"""A label-studio-ml backend as its users write it: one image at a time, PyTorch as it comes, eight gunicorn threads.

Of the stock server it has the routes and the loop over tasks; what it lacks (its model store, its log) costs time, too.
"""

from __future__ import annotations

import io
import os
from typing import Any

import boto3
import timm
import torch
from flask import Flask, jsonify, request
from PIL import Image

NETWORK, WEIGHTS = os.environ["BENCH_NETWORK"], os.environ.get("BENCH_FILE", "")


def create_app() -> Flask:
    """`/predict` and `/health`."""
    app = Flask("plain")
    s3 = boto3.client(
        "s3", endpoint_url=os.environ["LABELLOOP_S3_ENDPOINT"], region_name="us-east-1",
        aws_access_key_id=os.environ["LABELLOOP_S3_ACCESS_KEY"],
        aws_secret_access_key=os.environ["LABELLOOP_S3_SECRET_KEY"],
    )  # fmt: skip
    overlay = {"pretrained_cfg_overlay": {"file": WEIGHTS}} if WEIGHTS else {}
    model = timm.create_model(
        NETWORK, pretrained=bool(WEIGHTS), num_classes=0 if not WEIGHTS else 1000, **overlay
    ).eval()
    model.reset_classifier(3)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)

    def one(task: dict[str, Any]) -> dict[str, Any]:
        bucket, _, key = task["data"]["image"].removeprefix("s3://").partition("/")
        image = Image.open(io.BytesIO(s3.get_object(Bucket=bucket, Key=key)["Body"].read())).convert("RGB")
        with torch.no_grad():
            probabilities = model(transform(image).unsqueeze(0)).softmax(1)[0]
        best = int(probabilities.argmax())
        result = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [str(best)]}}
        return {"result": [result], "score": float(probabilities[best]), "model_version": "plain"}

    @app.get("/health")
    def health() -> Any:
        return jsonify({"status": "UP"})

    @app.post("/predict")
    def predict() -> Any:
        return jsonify({"results": [one(task) for task in request.get_json()["tasks"]]})

    return app
