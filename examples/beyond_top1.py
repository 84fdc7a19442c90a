"""Beyond the largest logit: the k largest, groups of classes, a detector, and sets that hold the true class."""

import torch

import tightlip

torch.manual_seed(0)
parts = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0)
train, calibration, test = parts.train, parts.validation, parts.test
network = torch.nn.Sequential(torch.nn.Flatten(), tightlip.mlp([784, 64, 64, 10]))
optimizer = tightlip.hold(network, torch.optim.Adam(network.parameters(), lr=2e-3))
for index in torch.randperm(4 * len(train)).remainder(len(train)).split(128):
    loss = tightlip.margin_cross_entropy(network(train.images[index]), train.labels[index], 0.8, 0.25)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

frozen, eps = tightlip.freeze(network), 0.6
even = [0, 2, 4, 6, 8]
decisions = {
    "the digit": tightlip.TopK(1),
    "among the two likeliest": tightlip.TopK(2),
    "even or odd": tightlip.Groups([even, [i + 1 for i in even]]),
    "a seven or not": tightlip.OneVsRest(7),
}
print(f"{'certified':<26}at 0    at {eps}")
shares = {}
for words, decision in decisions.items():
    certificate = tightlip.certify(frozen, test, p=2, decision=decision)
    shares[words] = certificate.accuracy(eps)
    print(f"{words:<26}{certificate.accuracy(0):.1%}   {shares[words]:.1%}")
assert all(share >= shares["the digit"] for share in shares.values())

print("\nsets that hold the true digit with probability 95 %, though images were moved")
for moved in (0.0, 0.3):
    sets = tightlip.conformal_sets(frozen, calibration, alpha=0.05, eps=moved, p=2)
    attacked = test.images
    if moved:
        attacked = tightlip.pgd(frozen, test.images, test.labels, moved, p=2, steps=10, restarts=1, progress=False)
    held = sets(attacked)
    coverage = float(held[torch.arange(len(test)), test.labels].double().mean())
    print(f"by up to {moved}: {coverage:.1%} do under attack, with {held.sum(1).double().mean():.2f} digits on average")
    assert coverage > 0.93
