"""Threads keep the floating-point mode that they were born with. What is proven holds in all of them, or is refused."""

import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

from tightlip import TightlipError, certify, lipschitz

POISONED = """
import json, math, torch
from torch import nn
torch.set_num_threads(2)
torch.set_flush_denormal(True)
torch.randn(1000, 1000).mul(2)  # the pool's threads are born here, and stay as they are
torch.set_flush_denormal(False)
import tightlip

def linear(weight, bias=None):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer

out = {"flushed": float((torch.full((1 << 20,), 1e-310, dtype=torch.float64).mul(1.0) == 0).double().mean())}
tiny = float(torch.tensor(1e-40))
square = linear(torch.full((300, 300), 1e-40))
out["tiny"] = tiny
out["bounds"] = [float(bound) for bound in tightlip.audit.gains(square).table.values()]
steep = linear(torch.stack((torch.full((300,), 1e37), torch.zeros(300))), [0.0, 1.0])
found = tightlip.certify(nn.Sequential(square, steep), torch.ones(2, 300), p=math.inf)
out["weights"] = found.prediction.tolist(), found.radius.tolist()
half = linear(torch.stack((torch.full((300,), 1e37), torch.zeros(300))), [0.0, 0.05])
found = tightlip.certify(half, torch.full((300, 300), 1e-40), p=math.inf)
out["inputs"] = sorted(set(found.prediction.tolist())), float(found.radius.max())
pairs = linear(torch.full((200, 300), 1.0))
pairs.weight.data[0] += 1e-5
found = tightlip.certify(nn.Sequential(square, pairs), torch.ones(200, 300), p=math.inf)
out["pairs"] = float(found.radius.max())
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def found():
    """What a process finds whose second thread flushes denormal numbers to zero and whose first one does not."""
    patient = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # on a busy machine, threads that spin take seconds
    done = subprocess.run([sys.executable, "-c", POISONED], capture_output=True, text=True, timeout=100, env=patient)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    if out["flushed"] == 0:
        pytest.skip("this torch has no second thread")
    return out


def test_bounds_do_not_depend_on_the_mode_of_other_threads(found):
    c = found["tiny"]
    truths = {(1, 1): 300, (1, 2): 300**0.5, (1, "inf"): 1, (2, 2): 300, (2, "inf"): 300**0.5, ("inf", "inf"): 300}
    for bound, factor in zip(found["bounds"], truths.values(), strict=True):
        assert c * factor * (1 - 1e-12) <= bound <= c * factor * (1 + 1e-6)


def test_certificates_are_of_the_weights_and_inputs_that_are_there(found):
    """Exactly, class 0 wins by 89 and by 0.25; with tiny numbers as zero, class 1 by its bias."""
    predictions, radii = found["weights"]
    assert predictions == [0, 0] and all(0.98 < radius < 0.99 for radius in radii)
    assert found["inputs"][0] == [0] and 0 < found["inputs"][1] <= 1e-40 * 0.84


def test_pairs_of_rows_behind_tiny_weights_have_their_distance(found):
    assert 0.98 < found["pairs"] < 1.0001


def test_a_thread_of_the_users_own_that_flushes_is_refused():
    said = []

    def ask():
        assert torch.set_flush_denormal(True)
        for act in (lambda: lipschitz(nn.Linear(2, 2), 2), lambda: certify(nn.Identity(), torch.ones(1, 2))):
            try:
                act()
            except TightlipError as problem:
                said.append(str(problem))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert len(said) == 2 and all("set_flush_denormal(False)" in sentence for sentence in said)
    assert lipschitz(nn.Linear(2, 2), 2).constant > 0
