"""The example of an export: thirty lines that classify an image with the folder, its runtime, numpy and Pillow alone.

What it does with pixels is what `labelloop.decoding` does; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from string import Template
from typing import Any

from labelloop.decoding.square import Square
from labelloop.errors import SettingsError
from retrain_worker.exports.formats import KINDS, Format

NAME = "classify.py"
TEMPLATE = Template('''\
"""Classify images: python classify.py IMAGE... Needs this folder and the packages $packages."""
import json, os, sys
from pathlib import Path
$quiet$imports
FOLDER = Path(__file__).parent
LABELS = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))["labels"]
$opened

def pixels(path):  # the square that the model takes: (1, 3, $size, $size) uint8 RGB
    image = Image.open(path)
    image.draft("RGB", ($longest, $longest))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # grays of 12 or 16 bits
        gray = np.asarray(image)
        image = Image.fromarray((gray // (1 if gray.max() < 256 else 16 if gray.max() < 4096 else 256)).astype("uint8"))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
$box
    image = image.convert("RGB").resize(($size, $size), Image.Resampling.$how, box, reducing_gap=3.0)
$steps    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))[None]

for path in sys.argv[1:]:
$asked
    best = probabilities[0].argmax()
    print(f"{path}\\t{LABELS[best]}\\t{probabilities[0][best]:.4f}"$more)
''')
CROPPED = """\
    side = min(image.size) * $crop
    box = [(image.width - side) / 2, (image.height - side) / 2, (image.width + side) / 2, (image.height + side) / 2]"""
SQUASHED = "    box = (0, 0, *image.size)"
QUIET: Mapping[Format, str] = {  # before their import: they would tell their makers of every start
    Format.ONNX: 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"\n',
    Format.OPENVINO: 'sys.modules["openvino_telemetry"] = None\n',
}
MORE = """ + f"\\t{rest[0][0]:.4f} of a class without a label\""""
STEPS: Mapping[str, str] = {  # as `labelloop.decoding.pixel_steps`
    "gray": "image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)",
    "blur": "image = cv2.GaussianBlur(image, ($kernel, $kernel), $sigma)",
    "hsv": "image = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)",
    "mask": "image = cv2.bitwise_and(image, image, mask=cv2.inRange(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), "
            "np.array($low), np.array($high)))",
}  # fmt: skip
OPENED: Mapping[Format, str] = {
    Format.ONNX: 'MODEL = onnxruntime.InferenceSession(FOLDER / "model.onnx", providers=["CPUExecutionProvider"])',
    Format.OPENVINO: 'MODEL = openvino.compile_model(FOLDER / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
    Format.TORCHSCRIPT: 'MODEL = torch.jit.load(FOLDER / "model.pt")',
    Format.TFLITE: 'MODEL = Interpreter(str(FOLDER / "model.tflite")).get_signature_runner()',
}
ASKED: Mapping[Format, str] = {
    Format.ONNX: 'probabilities, *rest = MODEL.run(None, {"images": pixels(path)})',
    Format.OPENVINO: "probabilities, *rest = MODEL(pixels(path)).values()",
    Format.TORCHSCRIPT: "probabilities, *rest = $said",
    Format.TFLITE: "probabilities, *rest = (part for _, part in sorted(MODEL(args_0=pixels(path)).items()))",
}
IMPORTS: Mapping[Format, str] = {
    Format.ONNX: "import onnxruntime",
    Format.OPENVINO: "import openvino",
    Format.TORCHSCRIPT: "import torch",
    Format.TFLITE: "from ai_edge_litert.interpreter import Interpreter",
}


def packages(form: Format, square: Square) -> tuple[str, ...]:
    """What the example needs, as pip names it."""
    return (KINDS[form].runtime, "numpy", "pillow", *(("opencv-python-headless",) if square.steps else ()))


def example(form: Format, square: Square, *, unseen: bool) -> str:
    """The source. ``unseen``: the model also says how likely an image is of a class that nobody has labelled."""
    said = "MODEL(torch.from_numpy(pixels(path)))" if unseen else "[MODEL(torch.from_numpy(pixels(path)))]"
    crop = SQUASHED if square.squash else Template(CROPPED).substitute(crop=square.crop)
    return TEMPLATE.substitute(
        packages=", ".join(packages(form, square)), quiet=QUIET.get(form, ""),
        imports="\n".join(_imports(form, square)), opened=OPENED[form], size=square.size,
        longest=math.ceil(square.size / square.crop), box=crop, how=square.interpolation.upper(),
        steps="".join(f"    {line}\n" for line in _steps(square.steps)),
        asked="    " + Template(ASKED[form]).substitute(said=said), more=MORE if unseen else "",
    )  # fmt: skip


def _imports(form: Format, square: Square) -> Iterator[str]:
    yield from sorted([*(["import cv2"] if square.steps else []), "import numpy as np", IMPORTS[form]])
    yield "from PIL import Image, ImageOps"


def _steps(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if steps:
        yield "image = np.asarray(image)"
    for step in steps:
        if step["do"] not in STEPS:
            raise SettingsError(f"this release cannot describe the preprocessing step {step['do']!r}: export with one "
                                "that can")  # fmt: skip
        yield Template(STEPS[step["do"]]).substitute(step)
