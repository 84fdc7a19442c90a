"""A .pt2 file is read without running anything: what comes out computes what the program does, or is refused."""

import json
import pickle
import zipfile

import pytest
import torch
from bridges.architectures import ARCHITECTURES
from torch import library, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

import tightlip as tl
from tightlip import TightlipError, lipschitz
from tightlip.bridges.exported import load_exported
from tightlip.graphs import Bias


class Calls(nn.Module):
    """A forward that is a function of this module and x, with one linear layer."""

    def __init__(self, forward):
        super().__init__()
        self.function, self.layer = forward, nn.Linear(6, 6)
        self.register_buffer("numbers", torch.arange(1.0, 7.0))
        self.register_buffer("mean", torch.ones(6))
        self.register_buffer("spread", torch.ones(6))

    def forward(self, x):
        return self.function(self, x)


def unsorted(parts):
    """Two comparators of the three that sort."""
    a, b, c = parts
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return low, torch.minimum(high, c), torch.maximum(high, c)


@library.custom_op("tightlip_tests::boost", mutates_args={"y"})
def boost(y: torch.Tensor) -> torch.Tensor:
    """Writes to what it takes, and makes something as well."""
    y.mul_(9.0)
    return y.new_full((), 9.0)


@boost.register_fake
def _boosted(y):
    return y.new_empty(())


def written(network, x, path, free=True):
    shapes = ({0: torch.export.Dim("batch")},) if free else None
    torch.export.save(torch.export.export(network, (x,), dynamic_shapes=shapes), path)
    return path


def rows(count=3):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(0))


READ = {
    "sums": lambda m, x: (m.layer(x) - 0.5 * x + x / 4).add(x, alpha=2) - 3 + (-x),
    "an offset before": lambda m, x: 1.0 - m.layer(x),
    "one number for each": lambda m, x: (x + m.numbers) * m.numbers / m.numbers,
    "views": lambda m, x: x.view(-1, 2, 3).permute(0, 2, 1).reshape(x.shape[0], 6).unsqueeze(1).squeeze(1),
    "pieces": lambda m, x: torch.cat([x.chunk(2, 1)[1], x.split([2, 4], 1)[0], x[:, 5:], x[:, None, 0]], 1),
    "stacked": lambda m, x: torch.stack([x, m.layer(x)], 1).flatten(1),
    "sorted": lambda m, x: tl.MaxMin()(tl.MaxMin(contiguous=False)(x)),
    "in place": lambda m, x: F.hardtanh(F.relu(m.layer(x), inplace=True), -1, 1, inplace=True),
    "in place, and the same": lambda m, x: (lambda h: F.relu(h, inplace=True) + h)(m.layer(x)),
    "several outputs": lambda m, x: (x, F.gelu(m.layer(x))),
    "moved": lambda m, x: x.roll(1, 1).flip(1).clone().contiguous(),
    "in two axes": lambda m, x: x.view(-1, 2, 3).mT.swapaxes(1, 2).flatten(1),
    "slopes": lambda m, x: F.rrelu(F.prelu(m.layer(x), m.numbers)),
    "largest": lambda m, x: F.adaptive_max_pool1d(F.adaptive_max_pool2d(x.view(-1, 1, 2, 3), (1, 3)).flatten(2), 2),
    "the largest of pairs": lambda m, x: tl.Maxout(2)(m.layer(x)),
    "the largest and the smallest": lambda m, x: torch.cat([x.amax(1, True), x.min(1, True)[0], x.amin((1,), True)], 1),
    "what is not used": lambda m, x: (x.sum(), x.max(1), m.layer(x))[2],
    "in order": lambda m, x: tl.GroupSort(3)(tl.FullSort()(x)),
    "in order, untrained": lambda m, x: tl.GroupSort(3, contiguous=False)(m.layer(x)),
}


SPREAD = torch.tensor([0.1, 1.0, 1.0, 10.0])

ALONG_TWO_AXES = {
    "divided, then weighed": (lambda m, x: m.layer(x / m.numbers[:, None]), (4, 4), nn.Linear(4, 4)),
    "weighed, then divided": (lambda m, x: m.layer(x) / m.numbers[:, None], (4, 4), nn.Linear(4, 4)),
    "multiplied": (lambda m, x: m.layer(x * m.numbers[:, None]), (4, 4), nn.Linear(4, 4)),
    "images": (lambda m, x: m.layer(x / m.numbers[:, None, None]), (4, 2, 4), nn.Linear(4, 4)),
    "of another length": (lambda m, x: m.layer(x / m.numbers[:, None]), (4, 5), nn.Linear(5, 4)),
    "flattened": (lambda m, x: m.layer((x / m.numbers[:, None]).flatten(1)), (4, 4), nn.Linear(16, 4)),
    "rows": (lambda m, x: m.layer(x / m.numbers), (4,), nn.Linear(4, 4)),
}


@pytest.mark.parametrize("name", ALONG_TWO_AXES)
def test_numbers_along_one_axis_and_weights_along_another_are_no_one_matrix(name, tmp_path, seed):
    forward, shape, layer = ALONG_TWO_AXES[name]
    network = Calls(forward)
    network.layer, network.numbers = layer, SPREAD
    network, x = network.double().eval(), torch.randn(3, *shape, dtype=torch.float64)
    graph = load_exported(written(network, x, tmp_path / "m.pt2"))
    torch.testing.assert_close(graph(x), network(x))
    jacobian = torch.autograd.functional.jacobian(network, x[:1]).reshape(-1, x[0].numel())
    true = float(torch.linalg.matrix_norm(jacobian.detach(), 2))
    assert true * (1 - 1e-12) <= lipschitz(graph, 2, 2).constant <= true * (1 + 1e-9)


def test_a_convolution_without_a_batch_is_refused(tmp_path, seed):
    """Its channels are the first axis, and what is multiplied before it lies along the other one."""
    network = Calls(lambda m, x: m.layer(x * m.numbers))
    network.layer, network.numbers = nn.Conv1d(4, 4, 1), SPREAD
    with pytest.raises(TightlipError, match="conv1d takes an image without a batch"):
        load_exported(written(network.eval(), torch.randn(4, 4), tmp_path / "m.pt2", free=False))


@pytest.mark.parametrize("name", READ)
def test_what_is_read_computes_what_the_program_does(name, tmp_path, seed):
    network, x = Calls(READ[name]).eval(), rows()
    graph = load_exported(written(network, x, tmp_path / "m.pt2"))
    for made, wanted in zip(tree_leaves(graph(x.clone())), tree_leaves(network(x.clone())), strict=True):
        torch.testing.assert_close(made, wanted)
    graph = graph.only(1) if graph.outputs else graph
    assert lipschitz(graph, 2).constant >= float(tl.gradient_norm(graph, x, output=0).max()) * (1 - 1e-6)


@pytest.mark.parametrize("name", ["LeNet", "WRN", "MobileNet", "U-Net", "DCGAN critic", "two heads"])
def test_architectures_are_read_and_have_the_bound_of_their_trace(name, tmp_path, seed):
    network, x = ARCHITECTURES[name]().eval(), torch.rand(2, 1, 8, 8)
    network = nn.Sequential(network, nn.Identity()) if name != "two heads" else network
    graph = load_exported(written(network, x, tmp_path / "m.pt2", free=name != "WRN"))
    for made, wanted in zip(tree_leaves(graph(x)), tree_leaves(network(x)), strict=True):
        torch.testing.assert_close(made, wanted)
    if name == "LeNet":
        with pytest.raises(TightlipError, match="LogSoftmax subtracts"):
            lipschitz(graph, 2)
        return
    found, traced = lipschitz(graph, 2, 2).constant, lipschitz(network, 2, 2).constant
    assert found == pytest.approx(traced, rel=1e-9) or name == "U-Net"  # padding and scaling are other layers there


def test_a_frozen_network_comes_back_with_its_bound(tmp_path, seed):
    layers = tl.Normalize([0.5], [0.25]), nn.Flatten(), Bias(64, -1), tl.mlp([64, 8, 3], K=2.0)
    frozen, x = tl.freeze(nn.Sequential(*layers)), torch.rand(2, 1, 8, 8)
    graph = load_exported(written(frozen, x, tmp_path / "m.pt2"))
    assert lipschitz(graph, 2).constant == pytest.approx(lipschitz(frozen, 2).constant, rel=1e-9)
    assert any(type(layer) is tl.MaxMin for layer in graph.children()) and not graph.training
    certificate = tl.certify(graph, x, p=2, progress=False)
    torch.testing.assert_close(certificate.radius, tl.certify(frozen, x, p=2, progress=False).radius)


LIES = {
    "examples mixed": (lambda m, x: x.view(2, 12), "view may mix examples", 4),
    "a mean of all": (lambda m, x: x - x.mean(0, keepdim=True), "different shapes|axis of the batch", 4),
    "a sum": (lambda m, x: x.sum(1), "sum adds up as many", 4),
    "a product": (lambda m, x: x * m.layer(x), "mul multiplies values", 4),
    "a quotient": (lambda m, x: 1 / x, "reciprocal has a slope without a bound|divides by a value", 4),
    "a repeated value": (lambda m, x: x[:, :1] + x, "add adds values of different shapes", 4),
    "a repeated value beside a tensor": (lambda m, x: x[:, :1] * m.numbers, "repeats entries|one number for each", 4),
    "a view written to": (
        lambda m, x: (lambda h: F.relu(h[:, :3], inplace=True).sum() * 0 + h)(m.layer(x)),
        "in place",
        4,
    ),
    "random": (lambda m, x: F.dropout(x, 0.5, True), "dropout is random", 4),
    "a larger of two": (lambda m, x: torch.maximum(x, m.layer(x)), "larger or the smaller", 4),
    "an operator that writes": (
        lambda m, x: (lambda y: (boost(y), y)[1])(m.layer(x)),
        "tightlip_tests.boost is none",
        4,
    ),
    "a list that is written to": (
        lambda m, x: (lambda y: (torch._foreach_mul_([y], 9.0), y)[1])(m.layer(x)),
        "foreach_mul_ is none of which",
        4,
    ),
    "statistics of a batch": (
        lambda m, x: (F.batch_norm(x, m.mean, m.spread, training=True), x * m.mean)[1],
        r"export network\.eval",
        4,
    ),
    "weights that are computed": (
        lambda m, x: F.linear(x, 0.5 * m.layer.weight),
        "mul computes with tensors of the network alone",
        4,
    ),
    "ends that are computed": (lambda m, x: x.clamp(m.numbers, m.numbers + 1), "add computes with tensors", 4),
    "in steps": (lambda m, x: x[:, ::2], "slice takes entries in steps", 4),
    "a sine": (lambda m, x: x.sin(), "sin is none of which a rule speaks", 4),
    "another order": (lambda m, x: torch.stack([torch.maximum(*x.view(4, 3, 2).unbind(2)), x[:, :3]], 2), "larger", 4),
    "not all in order": (lambda m, x: torch.stack(unsorted(x.view(4, 2, 3).unbind(2)), 2), "larger or the smaller", 4),
}


@pytest.mark.parametrize("name", LIES)
def test_what_would_lie_is_refused(name, tmp_path, seed):
    forward, words, count = LIES[name]
    with pytest.raises(TightlipError, match=words):
        lipschitz(load_exported(written(Calls(forward).eval(), rows(count), tmp_path / "m.pt2", free=False)), 2)


def test_batch_statistics_are_refused(tmp_path, seed):
    network = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    with pytest.raises(TightlipError, match=r"export network\.eval"):
        load_exported(written(network, rows(), tmp_path / "m.pt2", free=False))


@pytest.fixture
def file(tmp_path, seed):
    return written(nn.Sequential(nn.Linear(6, 6)).eval(), rows(), tmp_path / "m.pt2")


def rewritten(file, change):
    """The archive with each of its files, by its name within, changed; ``None`` leaves it out."""
    with zipfile.ZipFile(file) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(file, "w") as new:
        for name, content in parts.items():
            content = change(name.partition("/")[2], content)
            if content is not None:
                new.writestr(name, content)
    return file


def edited(part, edit):
    def change(name, content):
        if name != part:
            return content
        found = json.loads(content)
        edit(found)
        return json.dumps(found).encode()

    return change


WEIGHTS, MODEL = "data/weights/model_weights_config.json", "models/model.json"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, content: None if name == MODEL else content, "holds no program"),
        (lambda name, content: None if name == WEIGHTS else content, "cannot be read|damaged"),
        (lambda name, content: content[:-1] if name == "data/weights/weight_0" else content, "no bytes for its shape"),
        (lambda name, content: b"big" if name == "byteorder" else content, "another byte order"),
        (lambda name, content: content[:-9] if name == MODEL else content, "damaged"),
        (edited(MODEL, lambda found: found["schema_version"].update(major=9)), "schema 9, and 8 is read"),
        (edited(WEIGHTS, lambda found: found["config"]["0.weight"].update(use_pickle=True)), "pickled"),
        (
            edited(WEIGHTS, lambda found: found["config"]["0.weight"]["tensor_meta"].update(dtype=9)),
            "not a dense tensor",
        ),
        (edited(WEIGHTS, lambda f: f["config"]["0.weight"]["tensor_meta"]["sizes"][0].update(as_int=-1)), "damaged"),
        (edited(WEIGHTS, lambda f: f["config"]["0.weight"]["tensor_meta"]["strides"][0].update(as_int=99)), "no bytes"),
        (
            edited(MODEL, lambda f: f["graph_module"]["graph"]["nodes"][0].update(target="os.system")),
            "os.*none of which",
        ),
        (edited(MODEL, lambda f: f["graph_module"]["graph"]["nodes"].clear()), "outside of a layer"),
    ],
)
def test_a_damaged_archive_is_one_sentence(file, change, words):
    with pytest.raises(TightlipError, match=words):
        load_exported(rewritten(file, change))


def test_what_is_no_archive_is_one_sentence(tmp_path):
    path = tmp_path / "m.pt2"
    for content in (b"", b"garbage"):
        path.write_bytes(content)
        with pytest.raises(TightlipError, match="not a whole .pt2 file"):
            load_exported(path)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def test_nothing_in_the_file_is_unpickled_or_evaluated(file):
    """torch.export.load reads sample inputs by pickle, and evaluates the expressions of sizes."""

    def change(name, content):
        if name.startswith("data/sample_inputs"):
            return pickle.dumps(Bomb())
        return content.replace(b"Symbol('", b"__import__('os').abort() + Symbol('") if name == MODEL else content

    assert lipschitz(load_exported(rewritten(file, change)), 2).constant > 0
