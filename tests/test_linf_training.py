"""The training of distance networks: octaves rise, losses fade, and a resumed run is the run itself."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from tightlip import FadingCrossEntropy, LinfDistance, OctaveSchedule, TightlipError, fit
from tightlip.losses import multiclass_margin


def network():
    return nn.Sequential(LinfDistance(4, 6), LinfDistance(6, 3, negative=True))


def test_octaves_rise_to_infinity_and_the_rate_rises_and_falls():
    net, loss = network(), FadingCrossEntropy(0.5)
    adam = torch.optim.Adam(net.parameters(), 0.1)
    schedule = OctaveSchedule(adam, 100, net, loss, first=2, last=6, relaxed=0.8, warm_up=0.1)
    octaves, rates = [], []
    for step in range(100):
        assert loss.progress == step / 100
        octaves.append({layer.octave for layer in net})
        rates.append(adam.param_groups[0]["lr"])
        adam.step()
        schedule.step()
    alone = [octave for (octave,) in octaves]
    assert alone[0] == 2 and alone[80] == 6 and alone[81:] == [None] * 19
    assert [o for o in alone if o is not None] == sorted(o for o in alone if o is not None)
    assert set(alone) == {2, 3, 4, 5, 6, None}
    assert rates[0] < 0.01 < max(rates) <= 0.1 and rates[-1] < 1e-3 and rates.index(max(rates)) <= 12


def test_the_loss_is_a_hinge_at_the_end_and_cross_entropy_counts_at_first():
    loss, y = FadingCrossEntropy(0.5, scale=2.0), torch.tensor([0, 2])
    logits = torch.tensor([[0.2, 0.0, -1.0], [0.0, 0.0, 3.0]])
    hinge, entropy = 0.15, nn.functional.cross_entropy(2 * logits, y).item()
    assert multiclass_margin(logits, y).tolist() == pytest.approx([0.2, 3.0])
    for progress, share in ((0.0, 1.0), (0.5, 0.25), (1.0, 0.0)):
        loss.progress = progress
        assert loss(logits, y).item() == pytest.approx(share * entropy + (1 - 0.9 * share) * hinge, rel=1e-5)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    x, y = torch.rand(40, 4), torch.arange(40) % 3

    def run(epochs, stop=None, **options):
        torch.manual_seed(1)
        net, loss = network(), FadingCrossEntropy(0.3)
        optimizer = partial(torch.optim.Adam, lr=0.02)
        schedule = partial(OctaveSchedule, network=net, loss=loss)
        seen = []

        def score(net, x, y):
            seen.append(net[0].octave)
            if len(seen) == stop:
                raise KeyboardInterrupt
            return -float(loss(net(x), y))

        history = fit(
            net, loss, (x, y), (x, y), epochs, 8, optimizer, schedule, score, progress=False, tag="t", **options
        )
        return history, net.state_dict(), seen

    whole, weights, octaves = run(6)
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        run(6, stop=4, checkpoint=file)
    resumed, again, rest = run(6, checkpoint=file, resume=True)
    same = [[row["loss"] for row in history] for history in (whole, resumed)]
    assert same[0] == same[1] and all(torch.equal(weights[name], again[name]) for name in weights)
    assert octaves[-3:] == rest[-3:] and octaves[0] is not None and octaves[-1] is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda o, n: OctaveSchedule(o, 0, n), "steps"),
        (lambda o, n: OctaveSchedule(o, 9, n, first=5, last=4), "octaves rise"),
        (lambda o, n: OctaveSchedule(o, 9, n, last=21), "last"),
        (lambda o, n: OctaveSchedule(o, 9, n, relaxed=1.5), "relaxed must be a share"),
        (lambda o, n: OctaveSchedule(o, 9, n, warm_up=-0.5), "warm_up must be a share"),
        (lambda o, n: OctaveSchedule(o, 9, nn.Linear(2, 2)), "no LinfDistance or SortedDistance"),
        (lambda o, n: FadingCrossEntropy(-0.1), "margin must be a finite number ≥ 0"),
        (lambda o, n: FadingCrossEntropy(1.0, math.inf), "scale must be a finite number > 0"),
        (lambda o, n: FadingCrossEntropy(1.0)(torch.zeros(2, 3), torch.tensor([0, 3])), "labels reach from 0 to 3"),
    ],
)
def test_mistakes_are_told(call, says):
    net = network()
    with pytest.raises(TightlipError, match=says):
        call(torch.optim.SGD(net.parameters(), 0.1), net)
