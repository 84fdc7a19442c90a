"""Forwards of the user's own: what is traced does what they do, and what would lie is refused."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tightlip import (
    Graph,
    MaxMin,
    Residual,
    TightlipError,
    certify,
    freeze,
    hold,
    lipschitz,
    load,
    mlp,
    save,
    summary,
    trace,
)
from tightlip.audit import Sum
from tightlip.graphs import Outputs, Slice
from tightlip.graphs.agreement import refuse_disagreement


class Module(nn.Module):
    """A layer and a forward, which is given as a function of the module and its input."""

    def __init__(self, forward, layer=None):
        super().__init__()
        self.layer = layer if layer is not None else nn.Linear(4, 4)
        self.function = forward
        self.count = 0
        self.register_buffer("wide", torch.ones(3, 5, 4))

    def forward(self, x):
        return self.function(self, x)


def halves(x):
    a, b = torch.split(x, 2, dim=1)
    return a - b


def alone(x):
    x *= 3.0
    x -= 0.5
    x /= 2
    return x


HONEST = {
    "a residual": lambda m, x: x + m.layer(x),
    "a difference": lambda m, x: m.layer(x) - 0.5 * x,
    "a number on either side": lambda m, x: (2 * x) / 4 + (-x),
    "functions": lambda m, x: F.leaky_relu(torch.tanh(m.layer(x)), 0.2),
    "methods": lambda m, x: m.layer(x).relu().flatten(1),
    "concatenated": lambda m, x: torch.cat([x, m.layer(x)], dim=1),
    "from the end": lambda m, x: torch.cat([x, m.layer(x)], dim=-1),
    "sliced": lambda m, x: m.layer(x.flatten(1))[:, 1:3] + x.flatten(1)[:, :2],
    "split": lambda m, x: halves(m.layer(x.flatten(1))),
    "split unevenly": lambda m, x: m.layer(x).split([1, 3], 1)[1],
    "a view": lambda m, x: m.layer(x.view(x.size(0), -1)),
    "a view by its shape": lambda m, x: m.layer(x.reshape(x.shape[0], -1)),
    "a view of known size": lambda m, x: m.layer(x.view(-1, 4)),
    "used twice": lambda m, x: m.layer(F.relu(m.layer(x))),
    "in place on what is not used again": lambda m, x: F.relu(m.layer(x), inplace=True),
    "added in place": lambda m, x: m.layer(x).add_(x),
    "nothing": lambda m, x: x,
    "an unused branch": lambda m, x: (m.layer(x), x.relu())[1],
    "by keywords": lambda m, x: torch.cat(tensors=[torch.relu(input=x), torch.flatten(input=x, start_dim=1)], axis=1),
    "in place on what is not used again, by an operator": lambda m, x: alone(m.layer(x)),
    "a tuple": lambda m, x: (m.layer(x), x),
    "names": lambda m, x: {"class": m.layer(x), "raw": x},
}


def jacobian_norm(network, x):
    flat = lambda y: torch.cat([v.flatten(1) for v in (y.values() if isinstance(y, dict) else y)], 1)  # noqa: E731

    def function(x):
        y = network(x[None])
        return (flat(y) if isinstance(y, tuple | dict) else y.flatten(1))[0]

    return float(torch.linalg.matrix_norm(torch.func.jacrev(function)(x).flatten(1), 2).detach())


@pytest.mark.parametrize("name", HONEST)
def test_a_graph_does_what_the_forward_does_and_its_bound_holds(name, tmp_path, seed):
    network, x = Module(HONEST[name]).eval(), torch.randn(6, 4)
    graph = trace(network)
    torch.testing.assert_close(graph(x.clone()), network(x.clone()), rtol=0, atol=1e-6)
    bound = lipschitz(network, 2, 2)
    assert bound == lipschitz(graph, 2, 2)
    assert max(jacobian_norm(graph, each) for each in x) <= bound.constant * (1 + 1e-6)
    save(freeze(network), tmp_path / "m")
    loaded = load(tmp_path / "m")
    torch.testing.assert_close(loaded(x.clone()), graph(x.clone()), rtol=0, atol=0)
    assert lipschitz(loaded, 2, 2) == bound and str(summary(network)) == str(summary(loaded))


class Called(nn.Linear):
    def __call__(self, x):
        return 10 * super().__call__(x)


def counted(m, x):
    m.count += 1
    return m.layer(x) * m.count


def listed(m, x):
    m.seen = [*getattr(m, "seen", []), 1]
    return m.layer(x)


def written(m, x):
    with torch.no_grad():
        m.wide.add_(1.0)
    return m.layer(x)


def augmented(value, sign, other):
    """``value`` changed by an augmented assignment, and then used with what it was, as another name for it sees it."""
    known = {"changed": value, "other": other}
    exec(f"changed {sign} other", known)
    return known["changed"] + value


LIES = {
    "a leaf in place, its input used again": (
        lambda m, x: (lambda h: nn.ELU(5.0, inplace=True)(h) + h)(m.layer(x)),
        "tr",
    ),
    "a layer in place, its input used again": (lambda m, x: m.layer(x) + x, "in place"),
    "relu in place on a view": (lambda m, x: F.relu(x.flatten(1), inplace=True) + x, "in place"),
    "added in place, used again": (lambda m, x: (lambda h: h.add_(x) + h)(m.layer(x)), "in place"),
    "a buffer of a larger shape": (lambda m, x: x + m.wide, "outside of a layer"),
    "a parameter": (lambda m, x: x * m.layer.weight, "outside of a layer"),
    "general indexing": (lambda m, x: x[[0, 0, 0, 0]], "index"),
    "rows repeated": (lambda m, x: x[:, [0, 0, 0]], "index"),
    "one row": (lambda m, x: x[0], "index"),
    "a step": (lambda m, x: x[:, ::2], "index"),
    "a mask": (lambda m, x: x[x > 0], "no rule|index"),
    "a counter": (counted, "changes the module"),
    "a list that grows": (listed, "changes the module"),
    "a buffer written to": (written, "changes the module|outside of a layer|trace"),
    "a random number": (lambda m, x: x * random.random(), "random"),
    "a random tensor": (lambda m, x: x + torch.randn(4), "random|outside of a layer"),
    "a coin": (lambda m, x: x if random.random() < 0.5 else -x, "random"),
    "dropout": (lambda m, x: F.dropout(x), "is random: give training"),
    "a branch on data": (lambda m, x: x if x.sum() > 0 else -x, "branches on the values"),
    "a product of two": (lambda m, x: x * m.layer(x), "no rule"),
    "a quotient": (lambda m, x: 1 / x, "no rule"),
    "division by zero": (lambda m, x: x / 0, "no rule"),
    "a power": (lambda m, x: x**2, "multiplies values"),
    "a constant added": (lambda m, x: x + torch.ones(7, 4), "outside of a layer|no rule"),
    "the batch concatenated": (lambda m, x: torch.cat([x, x]), "axis of the batch"),
    "the batch flattened": (lambda m, x: x.flatten(), "no Lipschitz rule|batch|start_dim"),
    "the batch reshaped": (lambda m, x: x.view(2, -1), "mix examples"),
    "the batch averaged": (lambda m, x: x - x.mean(0), "axis of the batch|Mean has dim=0"),
    "transposed": (lambda m, x: x.t(), "may move the axis of the batch"),
    "matrix product with the input": (lambda m, x: x @ x.t(), "multiplies values|may move the axis"),
    "a sum scaled by a value": (lambda m, x: torch.add(x, x, alpha=x.size(1)), "sizes|arguments|number"),
    "an item assigned": (lambda m, x: x.__setitem__(0, 1.0) or x, "cannot be traced|no rule|branches"),
    "a number returned": (lambda m, x: 3.0, "returns what"),
    "a size returned": (lambda m, x: x.size(0), "returns what"),
    "layer norm": (lambda m, x: F.layer_norm(x, (4,)), "divides each input by its own spread|LayerNorm"),
    "a log softmax": (lambda m, x: F.log_softmax(m.layer(x), 1), "LogSoftmax subtracts a number"),
    "a log softmax over examples": (lambda m, x: x.log_softmax(0), "LogSoftmax subtracts a number"),
    "a functional linear map": (lambda m, x: F.linear(x, m.layer.weight), "outside of a layer"),
    "stacked": (lambda m, x: torch.stack([x, x]), "axis of the batch"),
    "expanded": (lambda m, x: x.expand(3, 4), "copies entries"),
    "all averaged": (lambda m, x: x - x.mean(), "averages the examples"),
    "all squeezed": (lambda m, x: x.squeeze(), "take the axis of the batch away"),
    "the batch rolled": (lambda m, x: x.roll(1, 0), "Roll along the axis of the batch"),
    "all rolled": (lambda m, x: x.roll(1), "from one example to another"),
    "the batch flipped": (lambda m, x: x.flip(0), "Flip along the axis of the batch"),
    "the batch permuted": (lambda m, x: x.permute(1, 0), "Permute has dims"),
    "the batch permuted by negative numbers": (lambda m, x: x.permute(-1, -2), "Permute has dims"),
    "the batch transposed": (lambda m, x: x.transpose(0, 1), "Transpose along the axis of the batch"),
    "the batch split": (lambda m, x: x.chunk(2)[0], "axis of the batch"),
    "the batch unbound": (lambda m, x: x.unbind()[0], "axis of the batch"),
    "an example selected": (lambda m, x: x.select(0, 1), "Select along the axis of the batch"),
    "an example at the end": (lambda m, x: x[-1], "index"),
    "a list among indices": (lambda m, x: x[:, [0, 1]], "index"),
    "a new axis for the batch": (lambda m, x: x[None], "index"),
    "a new axis and a slice": (lambda m, x: x[:, None, :2], "one after the other"),
    "by the other order of sizes": (lambda m, x: x.view(x.size(1), x.size(0)), "mix examples"),
    "examples among the features": (lambda m, x: x.reshape(x.shape[0], x.shape[0], -1), "in another order"),
    "the sizes of another value": (lambda m, x: m.layer(x).reshape(x.size(0), x.size(1), 1), "of other values"),
    "all examples in one product": (lambda m, x: x.view(x.size(0) * x.size(1)), "mix examples"),
    "two free sizes": (lambda m, x: x.view(x.size(0), -1, -1), "computed sizes|cannot be traced"),
    "a number of entries as a factor": (lambda m, x: x * x.size(0), "computes with the sizes"),
    "a number of entries as a divisor": (lambda m, x: x.relu() / x.shape[1], "computes with the sizes"),
    "pooled by the size": (lambda m, x: F.avg_pool1d(x, x.size(1)), "arguments|sizes|no rule"),
    "a softmax over examples": (lambda m, x: F.softmax(x, dim=0), "Softmax"),
    "a softmax in another type": (lambda m, x: F.softmax(x, dim=1, dtype=torch.float16), "arguments"),
    "narrowed from the end": (lambda m, x: x.narrow(1, -2, 2), "arguments"),
    "examples narrowed": (lambda m, x: x.narrow(0, 0, 2), "Slice along the axis of the batch"),
    "a last piece that is not counted": (lambda m, x: x.split(3, 1)[-1], "not counted"),
    "inputs by name with too much": (lambda m, x: torch.relu(input=x, out=None), "arguments|traced|no rule"),
    "no values together": (lambda m, x: torch.cat((x, 3.0), axis=1), "not one tensor|traced"),
    "all summed": (lambda m, x: x.sum(1), "adds up as many"),
    "a norm": (lambda m, x: F.normalize(x), "divides by the size"),
    "a spread": (lambda m, x: x / x.std(), "divides by the size"),
    "attention": (lambda m, x: F.scaled_dot_product_attention(x, x, x), "multiplies values"),
    "einsum": (lambda m, x: torch.einsum("ij,ij->i", x, x), "multiplies values"),
    "added in place by an operator": (lambda m, x: augmented(x, "+=", x), "in place"),
    "subtracted in place by an operator": (lambda m, x: augmented(m.layer(x), "-=", 0.5 * x), "in place"),
    "multiplied in place by an operator": (lambda m, x: augmented(m.layer(x), "*=", 20.0), "in place"),
    "divided in place by an operator": (lambda m, x: augmented(x, "/=", 0.25), "in place"),
    "a slice multiplied in place": (lambda m, x: (augmented(x[:, :1], "*=", 9), x)[1], "in place"),
    "a view multiplied in place": (lambda m, x: (augmented(x.view(-1, 4), "*=", 9), x)[1], "in place"),
    "a transpose multiplied in place": (lambda m, x: (augmented(x.mT, "*=", 9), x)[1], "in place"),
    "a power in place": (lambda m, x: augmented(m.layer(x), "**=", 2), "no rule speaks"),
    "a matrix product in place": (lambda m, x: augmented(m.layer(x), "@=", x), "no rule speaks|multiplies"),
    "a number without a float64": (lambda m, x: x + 10**400, "float64 cannot hold"),
    "keys that are not strings": (lambda m, x: {1: x, "1": 2 * x}, "keys are not strings"),
    "names of what is not there": (lambda m, x: torch.cat([x, x], 1, out=x), "no rule speaks"),
    "no tensor": (lambda m, x: torch.relu(torch.ones(4)) + x, "outside of a layer|no rule speaks"),
    "a clamp from above to below": (lambda m, x: x.clamp(1.0, -1.0), "arguments that no rule speaks"),
    "a clamp with one end": (lambda m, x: x.clamp(min=1.0), "has one end"),
    "computed sizes": (lambda m, x: x.reshape(x.size(0), x.size(1) // 2, 2), "no rule|computed sizes"),
    "an interpolation to a size": (lambda m, x: F.interpolate(x[:, None], size=9), "as often as"),
    "a logarithm": (lambda m, x: torch.log(x), "a slope without a bound at 0"),
    "a root": (lambda m, x: x.sqrt(), "a slope without a bound at 0"),
    "a softmax in another type by position": (lambda m, x: x.softmax(1, torch.float16), "arguments"),
    "torch softmax in another type by position": (lambda m, x: torch.softmax(x, 1, torch.float16), "arguments"),
    "a log softmax in another type": (lambda m, x: torch.log_softmax(x, 1, torch.float16), "arguments"),
    "repeated": (lambda m, x: x.repeat(1, 5), "copies entries"),
}


@pytest.mark.parametrize("name", LIES)
def test_what_would_lie_is_refused(name):
    forward, reason = LIES[name]
    network = Module(forward, nn.ELU(5.0, inplace=True) if "its input used again" in name else None)
    before = set(vars(network))
    with pytest.raises(TightlipError, match=reason):
        lipschitz(network, 2)
    assert set(vars(network)) <= before | {"seen"} and network.training


@pytest.mark.parametrize(
    ("layer", "refused"),
    [
        (nn.Sequential(nn.ELU(5.0, inplace=True)), True),
        (nn.Sequential(nn.Flatten(), nn.Sequential(nn.ELU(5.0, inplace=True))), True),
        (Residual(nn.ELU(5.0, inplace=True)), True),
        (nn.Sequential(nn.Linear(4, 4), nn.ELU(5.0, inplace=True)), False),
    ],
    ids=["inside", "on a view, two deep", "in a block", "on what is new"],
)
def test_layers_in_place_inside_of_others_are_seen(layer, refused):
    network = Module(lambda m, x: m.layer(x) + x, layer)
    if refused:
        with pytest.raises(TightlipError, match="in place"):
            trace(network)
    else:
        x = torch.randn(3, 4)
        assert torch.equal(trace(network)(x.clone()), network(x.clone()))


def test_a_graph_of_ones_own_copies_what_a_layer_in_place_would_spoil():
    rows = [("flat", (0,)), ("elu", (1,)), (Sum(1.0, 1.0), (0, 2))]
    x = torch.tensor([[-9.0, 1.0]])
    made = [Graph({"flat": nn.Flatten(), "elu": nn.ELU(5.0, inplace=way)}, rows)(x.clone()) for way in (False, True)]
    assert torch.equal(*made)


def test_code_around_a_forward_is_refused():
    with pytest.raises(TightlipError, match="__call__|no Lipschitz rule"):
        lipschitz(Module(lambda m, x: m.layer(x), Called(4, 4)), 2)
    hooked = Module(lambda m, x: m.layer(x))
    hooked.register_forward_hook(lambda module, args, output: 10 * output)
    replaced = Module(lambda m, x: m.layer(x))
    replaced.forward = lambda x: 10 * x
    inner = Module(lambda m, x: m.layer(x))
    inner.layer.register_forward_pre_hook(lambda module, args: (10 * args[0],))
    for network in (hooked, replaced, inner):
        with pytest.raises(TightlipError, match="hook|replaced"):
            lipschitz(network, 2)


def test_two_inputs_and_options_are_refused():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    class Optional(nn.Module):
        def forward(self, x, scale=2.0):
            return x * scale

    for network in (Two(), Optional()):
        with pytest.raises(TightlipError, match="more than one tensor|no rule"):
            lipschitz(network, 2)


def test_shapes_that_would_be_broadcast_are_refused_when_the_graph_runs():
    network = Graph({"layer": nn.Linear(1, 4)}, [("layer", (0,)), (Sum(1.0, 1.0), (0, 1))])
    with pytest.raises(TightlipError, match="cannot be added"):
        network(torch.ones(2, 1))


def test_layers_without_a_rule_are_named():
    with pytest.raises(TightlipError, match="LayerNorm"):
        lipschitz(Module(lambda m, x: m.layer(x), nn.LayerNorm(4)), 2)


def test_a_module_inside_a_sequential_is_opened_too():
    block = Module(lambda m, x: x + m.layer(x), nn.ReLU())
    assert lipschitz(nn.Sequential(nn.Flatten(), block), 2).constant == 2.0
    assert [name for name, *_ in lipschitz(nn.Sequential(block, block), 2).layers][:2] == ["0.layer", "0.value 2"]


def test_training_goes_on_in_the_original_and_outputs_are_chosen_by_name(seed):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.label, self.box = mlp([8, 8]), nn.Linear(8, 3), nn.Linear(8, 4)

        def forward(self, x):
            h = self.trunk(x)
            return {"label": self.label(h), "box": self.box(h)}

    network, x = Heads(), torch.randn(5, 8)
    optimizer = hold(network, torch.optim.Adam(network.parameters(), 1e-2))
    for _ in range(3):
        optimizer.zero_grad()
        sum(value.square().sum() for value in network(x).values()).backward()
        optimizer.step()
    frozen = freeze(network)
    assert isinstance(frozen, Graph) and frozen.outputs == ("label", "box")
    certificate = certify(frozen, x, output="label")
    assert certificate.bound == lipschitz(frozen.only("label"), 2)
    assert certificate.bound.constant < lipschitz(frozen, 2, 2).constant
    for output in (None, "x", 0):
        with pytest.raises(TightlipError, match="several outputs.*'label', 'box'"):
            certify(frozen, x, output=output)
    with pytest.raises(TightlipError, match="one output"):
        certify(frozen.only("label"), x, output="label")


def test_a_graph_refuses_tables_that_make_no_sense():
    relu = {"relu": nn.ReLU()}
    for table in (
        [("tanh", (0,))],
        [("relu", (1,))],
        [("relu", ())],
        [("relu", (0, 0))],
        [(Outputs(""), (0,)), ("relu", (0,))],
    ):
        with pytest.raises(TightlipError, match="of a graph"):
            Graph(relu, table)
    with pytest.raises(TightlipError, match="cannot be called"):
        Graph({"forward": nn.ReLU()}, [])
    with pytest.raises(TightlipError, match="axis of the batch"):
        lipschitz(Slice(0, 0, 1), 2)
    with pytest.raises(TightlipError, match="that of the batch"):
        Slice(-2, 0, 1)(torch.ones(2, 3))


def test_a_lenet_like_forward_with_pooling_is_audited(seed):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.sort = nn.Linear(16, 8), nn.Linear(8, 2), MaxMin()

        def forward(self, x):
            x = F.max_pool2d(F.relu(x), 2)
            x = F.avg_pool2d(x, kernel_size=2, stride=2)
            x = torch.flatten(x, 1)
            return self.second(self.sort(F.relu(self.first(x))))

    network, x = Net(), torch.randn(3, 1, 16, 16)
    frozen = freeze(network)
    torch.testing.assert_close(frozen(x), network(x), rtol=0, atol=1e-6)
    assert max(jacobian_norm(frozen, each) for each in x) <= lipschitz(network, 2, 2).constant


class Named(nn.Module):
    """Layers that are called as torch.fx calls functions."""

    def __init__(self, name, function):
        super().__init__()
        self.add_module(name, nn.Linear(4, 4))
        self.name, self.function = name, function

    def forward(self, x):
        return self._modules[self.name](self.function(x))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("flatten", lambda x: x.flatten(1)),
        ("getitem", lambda x: torch.cat([x[:, :2], x[:, 2:]], 1)),
        ("stack_0", lambda x: torch.stack([x, x], 1)[:, 1]),
        ("pad", lambda x: F.pad(x, (0, 0))),
        ("mul", lambda x: 1.0 * x),
        ("add", lambda x: x + 0.5),
    ],
)
def test_a_layer_that_is_called_as_a_function_is_another(name, function, seed):
    network, x = Named(name, function).eval(), torch.randn(5, 4)
    network._modules[name].weight.data.mul_(100)
    graph = trace(network)
    torch.testing.assert_close(graph(x), network(x))
    assert jacobian_norm(graph, x[0]) > 10
    assert lipschitz(network, 2, 2).constant >= max(jacobian_norm(graph, each) for each in x) / (1 + 1e-6)


def test_a_forward_that_asks_what_it_is_called_with_is_not_certified(seed):
    def forward(m, x):
        return m.layer(100 * x if isinstance(x, torch.Tensor) else x)

    network, x = Module(forward).eval(), torch.randn(6, 4)
    for ask in (trace, lambda network: lipschitz(network, 2), lambda network: certify(network, x)):
        with pytest.raises(TightlipError, match="makes of these inputs what its trace does not"):
            ask(network)
    assert certify(Module(lambda m, x: m.layer(x) + x).train(), x).radius.shape == (6,)


def test_a_forward_is_compared_with_its_trace_on_what_is_certified(seed):
    network, x = Module(lambda m, x: m.layer(x)).eval(), torch.randn(6, 4)
    graph = trace(network)
    network.layer = nn.Linear(4, 4)
    with pytest.raises(TightlipError, match="makes of these inputs what its trace does not"):
        refuse_disagreement(network, graph, x)
    network.layer = nn.Linear(9, 4)
    with pytest.raises(TightlipError, match="raises on these inputs"):
        refuse_disagreement(network, graph, x)
    refuse_disagreement(network, graph, torch.zeros(2, 7))


class Moody(nn.Module):
    """Ten times as much in training."""

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(4, 4)

    def forward(self, x):
        return 10 * self.f(x) if self.training else self.f(x)


class Dropping(Moody):
    def forward(self, x):
        return nn.functional.dropout(self.f(x), 0.5, self.training)


class TwoInTraining(Moody):
    def forward(self, x):
        return (self.f(x), x) if self.training else self.f(x)


@pytest.mark.parametrize("kind", [Moody, Dropping, TwoInTraining])
def test_a_forward_that_asks_for_training_is_refused_there_and_its_graph_stays_in_eval_mode(kind, tmp_path):
    network = kind().train()
    for ask in (trace, lambda n: lipschitz(n, 2)):
        with pytest.raises(TightlipError, match=r"something else in training: call network\.eval\(\) first"):
            ask(network)
    assert network.training and network.f.training
    graph = trace(network.eval())
    assert not graph.training and lipschitz(network, 2).constant == pytest.approx(
        float(torch.linalg.matrix_norm(network.f.weight.detach().double(), 2)), rel=1e-6
    )
    save(graph, tmp_path / "m")
    for again in (graph, load(tmp_path / "m")):
        with pytest.raises(TightlipError, match="does something else in training"):
            again.train()


def test_a_graph_of_layers_is_in_the_mode_of_its_network():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.drop = nn.Linear(4, 4), nn.Dropout()

        def forward(self, x):
            return x + self.drop(self.f(x))

    assert trace(Plain().train()).training and not trace(Plain().eval()).training
    assert trace(Plain().eval()).train().drop.training


def test_one_output_keeps_its_own_layers_and_the_table_is_shown():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x):
            z = self.body(x).relu()
            return {"first": self.first(z), "second": self.second(z) + 1}

    network = Heads().eval()
    graph, x = trace(network), torch.randn(5, 4)
    for name in ("first", "second"):
        one = graph.only(name)
        assert torch.equal(one(x), network(x)[name])
        assert {"first", "second"} & {key for key, _ in one.named_children()} == {name}
    assert "value 3 = first(value 2)" in repr(graph) and "Outputs('first', 'second')" in repr(graph)
    with pytest.raises(TightlipError, match="several outputs: give output= one of 'first', 'second'"):
        graph.only(None)


def modes(network):
    return {name: module.training for name, module in network.named_modules()}


def asking(question):
    class Asking(nn.Module):
        def forward(self, x):
            return 10 * x if question() else x

    return Asking()


@pytest.mark.parametrize(
    ("question", "mode"),
    [
        (torch.is_grad_enabled, "torch.no_grad"),
        (lambda: not torch.is_grad_enabled(), "torch.no_grad"),
        (torch.is_inference_mode_enabled, "torch.inference_mode"),
        (lambda: torch.is_autocast_enabled("cpu"), "autocast"),
    ],
)
def test_a_forward_that_asks_for_a_mode_of_torch_is_refused(question, mode):
    for context in (torch.enable_grad, torch.no_grad):
        with context(), pytest.raises(TightlipError, match="it does something else under torch|under autocast"):
            lipschitz(asking(question), 2)


class Frozen(nn.Module):
    """A batch normalization inside, which may be in another mode than the rest."""

    def __init__(self):
        super().__init__()
        self.a, self.bn, self.drop = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout()

    def forward(self, x):
        return self.drop(self.bn(self.a(x)))


def test_modes_of_layers_are_left_as_they_are_and_audited_as_in_a_sequential():
    network = Frozen().train()
    network.bn.eval()
    before = modes(network)
    for ask in (trace, lambda n: lipschitz(n.eval() and n, 2) if not n.training else None, summary):
        ask(network)
        assert modes(network) == before
    with pytest.raises(TightlipError, match="Dropout"):
        lipschitz(network, 2)
    assert modes(network) == before
    network.eval()
    network.bn.train()
    before = modes(network)
    with pytest.raises(TightlipError, match="BatchNorm1d in training mode"):
        lipschitz(network, 2)
    with pytest.raises(TightlipError, match="BatchNorm1d in training mode"):
        certify(network, torch.zeros(2, 3))
    assert modes(network) == before


class OfAChild(Frozen):
    def forward(self, x):
        y = self.a(x)
        return 10 * y if self.drop.training != self.bn.training else y


def test_a_forward_that_compares_the_modes_of_layers_is_refused_in_mixed_modes():
    network = OfAChild().eval()
    assert lipschitz(network, 2).constant < 5
    network.drop.train()
    with pytest.raises(TightlipError, match="something else in training"):
        lipschitz(network, 2)
