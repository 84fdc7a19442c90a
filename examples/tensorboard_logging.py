"""TensorBoard: loss, certified accuracy and margins by epoch, and the graph of the network, into a folder of events."""

import importlib.util
import tempfile
import warnings
from pathlib import Path

if importlib.util.find_spec("tensorboard") is None:
    print("skipped: this example needs TensorBoard, which pip install tensorboard brings")
    raise SystemExit

import torch
from torch.utils.tensorboard import SummaryWriter

import tightlip

folder = Path(tempfile.mkdtemp())  # yours would be "runs", for tensorboard --logdir runs
torch.manual_seed(0)
parts = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0)
train, validation = parts.train, parts.validation
network = torch.nn.Sequential(torch.nn.Flatten(), tightlip.mlp([784, 64, 64, 10]))
optimizer = tightlip.hold(network, torch.optim.Adam(network.parameters(), lr=2e-3))

with SummaryWriter(folder) as writer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's tracer, about checks of shapes
        writer.add_graph(network, train.images[:2])
    for epoch in range(3):
        for index in torch.randperm(len(train)).split(128):
            x, y = train.images[index], train.labels[index]
            loss = tightlip.margin_cross_entropy(network(x), y, offset=0.8, temperature=0.25)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        certificate = tightlip.certify(tightlip.freeze(network), validation, p=2, progress=False)
        writer.add_scalar("loss", loss.item(), epoch)
        for eps in (0.0, 0.3):
            writer.add_scalar(f"certified/{eps}", certificate.accuracy(eps), epoch)
        writer.add_histogram("margin", certificate.margin, epoch)
        print(f"epoch {epoch + 1}: {certificate.accuracy(0):.1%} correct, {certificate.accuracy(0.3):.1%} at 0.3")

events = list(folder.glob("events.out.tfevents.*"))
print(f"{events[0].stat().st_size:,} bytes of events")
assert len(events) == 1 and certificate.accuracy(0.3) > 0.5
