"""Serve the guarantee: one file that answers with class, radius and "abstain below ε", and carries its proof."""

import importlib.util
import tempfile
from pathlib import Path

if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")):
    print("skipped: this example needs onnx, onnxscript and onnxruntime, which pip install 'tightlip[onnx]' brings")
    raise SystemExit

import onnxruntime
import torch

import tightlip

torch.manual_seed(0)
parts = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0)
train, test = parts.train, parts.test
network = torch.nn.Sequential(torch.nn.Flatten(), tightlip.mlp([784, 64, 64, 10]))
optimizer = tightlip.hold(network, torch.optim.Adam(network.parameters(), lr=2e-3))
for index in torch.randperm(4 * len(train)).remainder(len(train)).split(128):
    loss = tightlip.margin_cross_entropy(network(train.images[index]), train.labels[index], 0.8, 0.25)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

frozen, eps = tightlip.freeze(network), 0.3
guard = tightlip.guarded(frozen, test.images[:2], eps=eps, reserve=1e-4)  # far more than float32 is off here
path = Path(tempfile.mkdtemp()) / "guarded.onnx"
tightlip.to_onnx(guard, path, test.images[:2])

session = onnxruntime.InferenceSession(path)  # from here on nothing of ours is needed
said = session.get_modelmeta().custom_metadata_map
logits, answer, radius, abstain = session.run(None, {"input": test.images.numpy()})
right = answer == test.labels.numpy()
print(f"K ≤ {said['tightlip.constant']} in the {said['tightlip.input_norm']}-norm, of these weights and no others")
print(f"answers {1 - abstain.mean():.1%} of the images, {right[~abstain].mean():.1%} of these correctly; ", end="")
print(f"all images: {right.mean():.1%}")

certificate = tightlip.certify(frozen, test, p=2)
assert said["tightlip.weights_sha256"] == tightlip.weights_sha256(frozen)
assert (torch.from_numpy(radius)[certificate.correct] <= certificate.radius[certificate.correct]).all()
assert right[~abstain].mean() > right.mean()
