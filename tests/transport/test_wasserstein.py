"""One call for two samples: who answers which question, what is refused, and that the answer is the truth."""

import importlib.util
import inspect
import io
import math
import sys
import types

import numpy as np
import pytest
import torch
from red_team.distances import attained, distances
from red_team.tally import Tally
from scipy.sparse import csr_matrix
from truths import gaussian

from tightlip import TightlipError, lipschitz, wasserstein1
from tightlip.data import load
from tightlip.transport import assign, pot, search, wasserstein
from tightlip.transport.population import population
from tightlip.transport.rounding import couple

ENDS = {wasserstein.REASONS["gap"], wasserstein.REASONS["exact"], "exact: the points are on a line"}
NORMS = [1.0, 2.0, math.inf]
X, Y, Z = gaussian(60, 3), gaussian(60, 3, seed=1) + 0.4, gaussian(45, 3, seed=2) + 0.4


@pytest.fixture
def without_pot(monkeypatch):
    monkeypatch.setattr(pot, "MOST", 0)


# ------------------------------------------------------------------------------------------------ who answers


@pytest.mark.parametrize(
    ("x", "y", "weights", "method"),
    [
        (X, Y, (None, None), "auction"),
        (X, Y, (np.full(60, 0.1), None), "auction"),
        (X, Y, (np.arange(1, 61), None), "network simplex"),
        (X, Z, (None, None), "network simplex"),
        (X[:, 0], Y[:, 0], (None, None), "order on the line"),
        (X[:, :1], Z[:, 0], (None, np.arange(1, 46)), "order on the line"),
        (X, X.flip(0), (None, None), "auction"),
    ],
)
@pytest.mark.usefixtures("without_pot")
def test_the_kind_of_samples_says_who_answers(x, y, weights, method):
    found = wasserstein1(x, y, weights=weights, tolerance=1e-4)
    assert found.method == method and found.p_value is None
    assert found.gap <= 1e-4 and found.reason in ENDS
    assert found.lower <= found.estimate <= found.upper and found.history[-1][1:] == (found.lower, found.upper)
    beside = couple(x, y, *weights, tolerance=0)
    assert beside.lower <= found.upper and found.lower <= beside.upper


@pytest.mark.parametrize("p", NORMS)
@pytest.mark.parametrize("y", [Y, Z])
def test_the_critic_separates_the_means_by_the_lower_bound(p, y):
    found = wasserstein1(X, y, p=p, tolerance=0)
    assert lipschitz(found.critic, p).constant == 1
    apart = float(found.critic(X).mean() - found.critic(y).mean())
    assert found.lower - 1e-12 <= apart <= found.upper + 1e-12 and found.upper - found.lower < 1e-11


@pytest.mark.parametrize("p", NORMS)
def test_weights_are_those_of_the_critic_and_of_the_pairs(p):
    a, b = torch.arange(60), gaussian(45).abs()
    found = wasserstein1(X, Z, p=p, weights=(a, b), tolerance=0)
    assert attained(found.critic, X.numpy(), Z.numpy(), a.numpy(), b.numpy()) == pytest.approx(found.lower, abs=1e-12)
    assert set(found.pairs[:, 0].tolist()) == set(range(1, 60))  # the first weighs nothing
    assert set(found.pairs[:, 1].tolist()) == set(range(45))


def test_the_pairs_of_equal_samples_cost_the_upper_bound():
    found = wasserstein1(X, Y)
    i, j = found.pairs.T
    assert float((X[i] - Y[j]).norm(dim=1).mean()) == pytest.approx(found.upper)
    assert sorted(i.tolist()) == sorted(j.tolist()) == list(range(60))


def test_digits_three_and_eight():
    """Known from the network simplex: 8.2233113054."""
    data = load("mnist5k")
    digits = [data.images[data.labels == digit].numpy() / 255.0 for digit in (3, 8)]
    found = wasserstein1(*digits, tolerance=1e-4)
    assert 0.9999 * 8.2233113054 <= found.lower <= 8.2233113055
    assert 8.2233113053 <= found.upper <= 8.2233113054 * 1.0001
    assert found.critic(torch.from_numpy(digits[0]).double().flatten(1)).shape == (500, 1)


# ----------------------------------------------------------------------------------------------- kinds of input


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint16", "int64"])
@pytest.mark.parametrize("y", [Y, Z])
def test_arrays_that_are_files_are_read_exactly(tmp_path, dtype, y):
    paths = tmp_path / "x.npy", tmp_path / "y.npy"
    for path, points in zip(paths, (X, y), strict=True):
        np.save(path, (points.numpy() * 20 + 60).astype(dtype))
    files = [np.load(path, mmap_mode="r") for path in paths]
    found, held = wasserstein1(*files), wasserstein1(*(np.array(file, dtype=np.float64) for file in files))
    assert (found.lower, found.upper) == (held.lower, held.upper)
    if dtype != "uint16":  # torch has few operations on it
        tensors = wasserstein1(*(torch.from_numpy(np.array(file)) for file in files))
        assert (tensors.lower, tensors.upper) == (held.lower, held.upper)


def test_several_axes_are_one_point():
    images = wasserstein1(X.reshape(60, 1, 3), Z[:, None])
    assert (images.lower, images.upper) == (wasserstein1(X, Z).lower, wasserstein1(X, Z).upper)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("y", [Y, Z])
def test_samples_on_a_gpu_are_searched_on_the_cpu(y):
    found, here = wasserstein1(X.cuda(), y.cuda()), wasserstein1(X, y)
    assert (found.lower, found.upper) == (here.lower, here.upper) and found.critic.points.device.type == "cpu"


# ------------------------------------------------------------------------------------------------ it may stop


@pytest.mark.parametrize("seconds", [0, 1e-3, 0.05])
@pytest.mark.parametrize("shape", [(500, 500, 2), (500, 500, 16), (400, 500, 2), (400, 500, 16)])
def test_the_interval_holds_whenever_it_ends(shape, seconds):
    n, m, d = shape
    x, y = gaussian(n, d), gaussian(m, d, seed=1) + 0.2
    whole, found = wasserstein1(x, y, tolerance=1e-3), wasserstein1(x, y, tolerance=0, seconds=seconds)
    assert 0 < found.lower <= whole.upper and whole.lower <= found.upper < math.inf
    assert found.seconds <= seconds + 1
    if seconds == 0:
        assert found.reason == "the time was over"


def test_a_bar_is_shown_on_a_terminal_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for y in (Y, Z):
        for stream, progress, shown in (
            (Terminal(), True, True),
            (io.StringIO(), True, False),
            (Terminal(), False, False),
        ):
            monkeypatch.setattr(sys, "stderr", stream)
            wasserstein1(X, y, progress=progress)
            assert bool(stream.getvalue()) == shown


# -------------------------------------------------------------------------------------------------- POT proposes


def module(emd):
    found = types.ModuleType("ot", "stands in for POT")
    found.emd, found.__spec__ = emd, importlib.util.spec_from_loader("ot", None)
    return found


def liar(seed):
    """Returns a plan and prices of nothing at all, and says that they are the best."""

    def emd(a, b, costs, numItermax, log):
        draws = np.random.default_rng(seed)
        plan, size = draws.random(costs.shape) ** 9 * draws.choice([1e-6, 1e-3, 1.0]), draws.choice([0.1, 10])
        return plan, {"v": size * draws.standard_normal(len(b)), "result_code": 1}

    return emd


@pytest.mark.parametrize("seed", range(10))
def test_what_pot_says_is_not_believed(monkeypatch, seed):
    truth = wasserstein1(X, Z, tolerance=0)
    monkeypatch.setattr(pot, "LEAST", 0)
    monkeypatch.setitem(sys.modules, "ot", module(liar(seed)))
    lied = wasserstein1(X, Z, tolerance=0)
    assert 0 < lied.lower <= truth.upper and truth.lower <= lied.upper
    assert lied.upper > lied.lower + 1e-3 and lied.reason == "no pair improves any more"


@pytest.mark.parametrize(
    "answer",
    [
        lambda a, b, costs: (np.full(costs.shape, np.nan), {"v": b, "result_code": 1}),
        lambda a, b, costs: (-np.outer(a, b), {"v": b, "result_code": 1}),
        lambda a, b, costs: (np.outer(a, b), {"v": b * np.inf, "result_code": 1}),
        lambda a, b, costs: (np.outer(a, b), {"v": b, "result_code": 3}),  # its limit of pivots
    ],
)
def test_where_pot_fails_the_search_goes_on(monkeypatch, answer):
    monkeypatch.setattr(pot, "LEAST", 0)
    monkeypatch.setitem(sys.modules, "ot", module(lambda a, b, costs, numItermax, log: answer(a, b, costs)))
    found = wasserstein1(X, Z, tolerance=1e-6)
    assert found.gap <= 1e-6 and found.method == "network simplex"


def test_pot_is_asked_only_where_it_can_be_done_in_time(monkeypatch):
    monkeypatch.setattr(pot, "LEAST", 0)
    monkeypatch.setitem(sys.modules, "ot", module(lambda *given, **options: pytest.fail("it was asked")))
    wasserstein1(X, Z, seconds=1e-3)
    wasserstein1(X[:, 0], Z[:, 0])
    wasserstein1(gaussian(60, 4), gaussian(60, 4, seed=1))  # the auction is as fast
    monkeypatch.setattr(pot, "MOST", 60 * 45 - 1)
    wasserstein1(X, Z)


@pytest.mark.skipif(
    importlib.util.find_spec("ot") is None, reason="POT is not installed: pip install -e '.[transport]'"
)
def test_with_pot_the_truth_is_in_the_interval(monkeypatch):
    monkeypatch.setattr(pot, "LEAST", 0)
    assert wasserstein1(X, Z, tolerance=1e-9).method == wasserstein1(X, Y).method == "network simplex (POT)"
    tally = Tally()
    for seed in range(100):
        distances(seed, tally)
    assert not tally.complaints, tally.complaints[0]


# ------------------------------------------------------------------------------------------------- distributions


def test_about_distributions_is_another_question():
    options = {"level": 0.9, "diameter": 20.0, "critic": "linear", "seed": 3}
    found = wasserstein1(X, Z, about="distributions", progress=False, **options)
    same = population(X, Z, **options)
    assert (found.lower, found.upper, found.p_value) == (same.lower, same.upper, same.p_value)
    assert found.upper > wasserstein1(X, Z).upper and 0 < found.p_value <= 1


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("points", "options", "sentence"),
    [
        ((X * math.nan, Y), {}, "60 of 60 points of x are NaN or infinite"),
        ((X, Y / 0), {}, "60 of 60 points of y are NaN or infinite"),
        ((X, Y[:, :2]), {}, r"points of x have shape \(3,\), those of y \(2,\): give points of one space"),
        ((X[0], Y), {}, r"points of x have shape \(1,\), those of y \(3,\)"),
        ((X[:0], Y), {}, r"x has shape \(0, 3\): give points \(n, …\), at least 1"),
        ((torch.tensor(1.0), Y), {}, r"x has shape \(\)"),
        (("a.npy", Y), {}, "x must be a tensor or a numpy array, got a str"),
        ((np.array([["a", "b", "c"]]), Y), {}, "x must be numbers, got an array of <U1"),
        ((X > 0, Y), {}, "x must hold numbers, got torch.bool"),
        ((X.numpy().astype(complex), Y), {}, "x must be real numbers, got complex128"),
        ((X, Y.numpy().astype(object)), {}, "y must be numbers, got an array of object"),
        ((X, np.ma.masked_greater(Y.numpy(), 2.0)), {}, "masked entries of y hold nothing: fill them, or drop"),
        ((X.to_sparse(), Y), {}, r"x must be dense and hold its numbers, got another kind \(torch.sparse_coo"),
        ((X, Y.to("meta")), {}, "y must be dense and hold its numbers, got another kind .*on meta"),
        ((X, csr_matrix(Y.numpy())), {}, r"y must be a tensor .*, got a csr_matrix: convert with its toarray\(\)"),
        ((X, np.full((9, 3), 2**60)), {}, "y must be numbers that float64 has exactly, .*got torch.int64"),
        ((X, Y), {"weights": (-np.ones(60), None)}, "weights of x must not be negative"),
        ((X, Y), {"weights": (None, np.zeros(60))}, "weights of y must not be negative, nor all zero"),
        ((X, Y), {"weights": (None, np.ones(59))}, r"weights of y have shape \(59,\): give one for each of 60 points"),
        ((X, Y), {"weights": (None, np.ones(60) * np.nan)}, "60 of 60 weights of y are NaN"),
        ((X, Y), {"weights": np.ones(60)}, "weights must be a pair"),
        ((X, Y), {"p": 3}, "choose 1, 2 or inf"),
        ((X, Y), {"about": "sample"}, "did you mean samples"),
        ((X, Y), {"tolerance": -1}, "tolerance must be a finite number ≥ 0"),
        ((X, Y), {"seconds": -1}, "seconds must be a finite number ≥ 0"),
        ((X, Y), {"progress": 1}, "progress must be True or False"),
        ((X, Y), {"seed": -1}, "seed must be an integer from 0"),
        ((X, Y), {"seed": 2**63}, "seed must be an integer from 0 to 9223372036854775807"),
        ((X, Y), {"seconds": 10**400}, "seconds must be a finite number ≥ 0"),
        ((X, Y), {"tolerance": np.array(["1"])}, "tolerance must be a finite number ≥ 0"),
        ((X, Y), {"about": ["samples"]}, r"no question is called \['samples'\]"),
        ((X, Y), {"heard": 3}, r"heard must be a function of \(interval\), got 3"),
        ((X, Y), {"heard": lambda: None}, r"heard must be a function of \(interval\), and <lambda> is not"),
        ((X, Y), {"weights": (np.ma.masked_less(np.arange(60), 3), None)}, "masked entries of the weights of x"),
        ((X, Y), {"level": 0.99}, "level has no meaning about samples: leave it out, or ask about='distributions'"),
        ((X, Y), {"diameter": 9.0}, "diameter has no meaning about samples"),
        ((X, Y), {"critic": "linear"}, "critic has no meaning about samples"),
        (
            (X, Y),
            {"about": "distributions", "weights": (np.ones(60), None)},
            "weights has no meaning about distr",
        ),
        ((X, Y), {"about": "distributions", "tolerance": 0.1}, "tolerance has no meaning about distributions"),
        ((X, Y), {"about": "distributions", "diameter": 0.1}, "diameter"),
        ((X[:1], Y), {"about": "distributions"}, "at least 3"),
        ((X * math.nan, Y), {"about": "distributions"}, "NaN or infinite"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(points, options, sentence):
    with pytest.raises(TightlipError, match=sentence) as caught:
        inspect.unwrap(wasserstein1)(*points, **options)
    assert "\n" not in str(caught.value)


def test_samples_that_are_too_large_are_refused_before_they_are_read(monkeypatch):
    huge, large = (np.broadcast_to(np.float32(0), (n, d)) for n, d in ((10**7, 16), (2 * 10**6, 3)))
    with pytest.raises(TightlipError, match="samples of 3.2e\\+08 numbers are not searched.*about='distributions'"):
        wasserstein1(huge, huge)
    with pytest.raises(TightlipError, match="all 4e\\+12 pairs of points would take about 24 hours on one core"):
        wasserstein1(large, large)
    monkeypatch.setattr(wasserstein, "PAIRS", 60 * 45 - 1)
    with pytest.raises(TightlipError, match="pairs of points"):
        wasserstein1(X, Z)
    assert wasserstein1(X, Z, seconds=0).reason == "the time was over"
    assert wasserstein1(X[:, :1], Z[:, :1]).gap < 1e-12


# ------------------------------------------------------------------------------------ what goes on, and who listens


@pytest.mark.parametrize("p", NORMS)
def test_an_interval_goes_on_from_an_earlier_one(p):
    true = wasserstein1(X, Y, p=p, tolerance=0, progress=False)
    first = wasserstein1(X, Y, p=p, seconds=0, progress=False)
    found = wasserstein1(X, Y, p=p, tolerance=1e-6, start=first, progress=False)
    assert first.lower <= found.lower <= true.upper and true.lower <= found.upper <= first.upper
    assert found.gap <= 1e-6 < first.gap


def test_who_listens_hears_intervals_that_hold(monkeypatch, without_pot):
    monkeypatch.setattr(search, "PATIENCE", 0.0)
    monkeypatch.setattr(search, "SPARSE", 0.0)
    for y in (Y, Z):
        heard = []
        found = wasserstein1(X, y, tolerance=1e-4, progress=False, heard=heard.append)
        assert heard and all(one.lower <= found.upper and found.lower <= one.upper for one in heard)
        assert {one.reason for one in heard} == {"the search is going on"} and heard[-1].lower > 0


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        (lambda: wasserstein1(X, Y, progress=False, seconds=0).critic, "start must be what wasserstein1 has returned"),
        (lambda: 0.5, "start must be what wasserstein1 has returned"),
        (lambda: wasserstein1(X[:40], Y[:40], progress=False), "start is of other samples"),
    ],
    ids=["critic", "number", "other samples"],
)
def test_a_start_that_is_none_is_refused(start, sentence):
    with pytest.raises(TightlipError, match=sentence):
        wasserstein1(X, Y, start=start(), progress=False)


@pytest.mark.parametrize("option", ["start", "heard"])
def test_about_distributions_there_is_nothing_to_go_on_from(option):
    given = {option: wasserstein1(X, Y, progress=False) if option == "start" else print}
    with pytest.raises(TightlipError, match=f"{option} has no meaning about distributions"):
        wasserstein1(X, Y, about="distributions", progress=False, **given)


# --------------------------------------------------------------------------------------- what else a caller may do


@pytest.mark.parametrize("call", [wasserstein1, assign, couple], ids=lambda call: call.__name__)
@pytest.mark.parametrize("shape", [(8, 8, 3), (24, 8), (192,)])
def test_points_of_two_shapes_are_not_compared_by_place(call, shape):
    with pytest.raises(TightlipError, match=r"points of x have shape \(3, 8, 8\), those of y .*: give"):
        call(torch.rand(5, 3, 8, 8), torch.rand(5, *shape))


@pytest.mark.parametrize("call", [wasserstein1, assign])
def test_another_default_device_changes_nothing(call):
    here = call(X, X + 1)
    try:
        torch.set_default_device("meta")
        there = call(X, X + 1)
    finally:
        torch.set_default_device(None)
    assert (there.lower, there.upper) == (here.lower, here.upper)


def test_samples_of_two_sizes_take_another_default_device_too():
    here = wasserstein1(X, Z)
    try:
        torch.set_default_device("meta")
        there = wasserstein1(X, Z)
    finally:
        torch.set_default_device(None)
    assert (there.lower, there.upper) == (here.lower, here.upper)


@pytest.mark.parametrize("critic", [None, "linear", "network", "funnels"])
def test_distributions_are_told_apart_in_inference_mode_and_with_another_default_type(critic):
    options = {"about": "distributions", "critic": critic, "seconds": 0.3}
    with torch.inference_mode():
        found = wasserstein1(X.clone(), Z.clone() + 9, **options)
    assert found.lower > 0
    try:
        torch.set_default_dtype(torch.float64)
        found = wasserstein1(X, Z + 9, **options)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.lower > 0


@pytest.mark.parametrize("d", [1, 2, 12])
def test_samples_that_are_one_distribution_are_at_no_distance(d):
    x = gaussian(7, d)
    weights = torch.tensor([1.0, 2, 3, 0, 0.1, 7, 5])
    for y, pair in (
        (torch.cat((x, x)), (None, None)),
        (x.flip(0), (weights, weights.flip(0))),
        (torch.cat((x, x)), (weights, torch.cat((2 * weights, weights)))),
    ):
        found = wasserstein1(x, y, weights=pair, tolerance=0)
        assert found.lower == found.upper == found.gap == 0 and found.reason.startswith("exact")
        if d > 1:
            assert torch.equal(x[found.pairs[:, 0]], y[found.pairs[:, 1]])
    moved = x.clone()
    moved[3] += 1e-6
    for y, pair in ((torch.cat((x, moved)), (None, None)), (x, (weights, None))):
        assert wasserstein1(x, y, weights=pair).lower > 0


@pytest.mark.parametrize("unit", [1e300, 1e-200, 1e-300])
@pytest.mark.parametrize("d", [1, 3, 12])
@pytest.mark.parametrize("m", [9, 7])
def test_the_critic_is_what_proves_the_lower_end_in_any_unit(unit, d, m):
    x, y = gaussian(9, d).double() * unit, gaussian(m, d, seed=1).double() * unit
    found = wasserstein1(x, y)
    means = [float((found.critic(points) / unit).mean()) for points in (x, y)]
    assert means[0] - means[1] == pytest.approx(found.lower / unit, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"start": "junk"}, "start must be what wasserstein1 has returned"),
        ({"p": True}, "no norm is called True: choose 1, 2 or inf"),
        ({"about": "distributions", "level": 1e-300}, "level must be a number between 0 and 1, got 1e-300"),
        ({"y": torch.empty(3, X.shape[1], dtype=torch.bits8)}, "y must be numbers that float64 has exactly"),
    ],
    ids=["start", "p", "level", "y"],
)
def test_an_argument_that_is_none_is_one_sentence(change, sentence):
    with pytest.raises(TightlipError, match=sentence):
        inspect.unwrap(wasserstein1)(**{"x": X, "y": Z} | change)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused():
    with pytest.raises(TightlipError, match="x must be dense"):
        wasserstein1(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), Z)
