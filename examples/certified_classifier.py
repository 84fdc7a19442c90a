"""From images to certificates in a training loop of one's own: train, freeze, audit, certify, and try to break it."""

import torch

import tightlip

torch.manual_seed(0)
parts = tightlip.data.split(tightlip.data.load("mnist5k"), seed=0)  # 5,000 real images that come with the package
train, test = parts.train, parts.test

network = torch.nn.Sequential(torch.nn.Flatten(), tightlip.mlp([784, 128, 128, 10], K=1.0))
optimizer = tightlip.hold(network, torch.optim.Adam(network.parameters(), lr=2e-3))  # the only new line in the loop

for epoch in range(8):
    for index in torch.randperm(len(train)).split(128):
        x, y = train.images[index], train.labels[index]
        loss = tightlip.margin_cross_entropy(network(x), y, offset=0.8, temperature=0.25)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

frozen = tightlip.freeze(network)  # ordinary torch modules, each weight exactly on its set
bound = tightlip.lipschitz(frozen, p=2)  # the proof, from the weights that are really there
certificate = tightlip.certify(frozen, test.images, test.labels, p=2)
print(f"audited constant   {bound.constant}")
print(f"accuracy           {certificate.accuracy(0):.1%}")
print(f"certified at 0.3   {certificate.accuracy(0.3):.1%}")

# An attack may move every image by 0.999 of its certified radius. It has 40 steps from each of 5 starts.
# It must change no prediction.
sure = certificate.correct
eps = 0.999 * certificate.radius[sure]
attacked = tightlip.pgd(frozen, test.images[sure], test.labels[sure], eps, p=2, steps=40)
assert bool((frozen(attacked).argmax(1) == test.labels[sure]).all())
