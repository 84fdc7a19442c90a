"""foolbox and torchattacks take a frozen network as it is: no attack comes nearer than the certified radius."""

import importlib.util
import warnings

if importlib.util.find_spec("foolbox") is None:
    print("skipped: this example needs foolbox, which pip install 'tightlip[attacks]' brings")
    raise SystemExit

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

frozen = tightlip.freeze(network)
certificate = tightlip.certify(frozen, test.images[:100], test.labels[:100], p=2)
sure = certificate.correct
x, y, radius = test.images[:100][sure], test.labels[:100][sure], certificate.radius[sure]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what the libraries import
    import foolbox

    model = foolbox.PyTorchModel(frozen, bounds=(0, 1), device="cpu")  # as it is
    (_, moved, found) = foolbox.attacks.L2DeepFoolAttack()(model, x, y, epsilons=None)
distance = (moved - x).flatten(1).norm(dim=1)
share = (distance / radius)[found]
print(
    f"DeepFool of foolbox: nearest {share.min():.2f} radii, median {share.median():.2f}, of {int(found.sum())} images"
)
assert (share >= 1 - 1e-5).all()

if importlib.util.find_spec("torchattacks") is not None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchattacks

        moved = torchattacks.DeepFool(frozen, steps=50)(x[:10], y[:10])
    fooled = frozen(moved).argmax(1) != y[:10]
    share = ((moved - x[:10]).flatten(1).norm(dim=1) / radius[:10])[fooled]
    print(f"DeepFool of torchattacks: nearest {share.min():.2f} radii ({int(fooled.sum())} images)")
    assert (share >= 1 - 1e-5).all()
