"""Before training: a few examples of each part go through the network, and what does not fit is refused."""

import torch
from torch import Tensor, nn

from ..errors import TightlipError
from ..layers import Normalize, Scale
from ..robustness.evaluation import wrong_size
from .examples import Batch, Stream, Tensors
from .measures import Measures, Metric, Score, is_classification, one_tensor, predict
from .targets import Form, Loss, are_labels, compare, fitting, fitting_metric

REHEARSED = 8
"""Examples."""


def rehearse(
    network: nn.Module,
    loss: Loss,
    source: Tensors | Stream,
    held_out: Batch | None,
    score: Score | None,
    metrics: dict[str, Metric],
) -> Measures:
    """Send a few examples of each part through the network, and decide what is measured and how targets are put.

    Raises:
        TightlipError: for whatever does not fit; the network is as it was.
    """
    modes = [(module, module.training) for module in network.modules()]
    x, y = source.first(REHEARSED)
    seen = (source.inputs, source.targets) if isinstance(source, Tensors) else (x, y)
    network.eval()
    try:
        with torch.random.fork_rng():
            outputs = _outputs(network, x, "training", source.rows(x))
            form = fitting(loss, outputs, y)
            _refuse_blind(loss, form, outputs, y)
            _try_labels(network, loss, form, outputs, seen)
            if held_out is not None:
                some = held_out[0][:REHEARSED]
                held_out = _alike(outputs, y, _outputs(network, some, "validation", len(held_out[0])), held_out)
                _try_labels(network, loss, form, outputs, held_out)
            put = form(outputs, y)
            measured = {name: (each, fitting_metric(name, each, outputs, put)) for name, each in metrics.items()}
    finally:
        for module, mode in modes:
            module.training = mode
    classifies = all(is_classification(outputs, part[1]) for part in (seen, held_out) if part is not None)
    return Measures(loss, form, classifies, held_out, score, measured)


def _outputs(network: nn.Module, x: Tensor, part: str, rows: int) -> Tensor:
    """Of some of the inputs of a part that has so many rows."""
    try:
        if x.dim() == 1 and x.is_floating_point() and _begins_linear(network):
            raise RuntimeError  # in a linear layer they could be one input of as many numbers
        with torch.no_grad():
            outputs = one_tensor(network(x.clone()))
    except (RuntimeError, IndexError, ValueError) as problem:
        if isinstance(problem, TightlipError | torch.OutOfMemoryError):
            raise
        shape = (rows, *x.shape[1:])
        raise TightlipError(
            f"the {part} inputs of shape {shape} do not fit the network: {_reason(network, x, problem)}"
        ) from problem
    if len(outputs) != len(x):
        raise TightlipError(f"the network makes {len(outputs)} outputs of {len(x)} inputs: keep the batch axis first")
    return outputs


def _reason(network: nn.Module, x: Tensor, problem: Exception) -> str:
    if not x.is_floating_point():
        return f"they are {x.dtype}, give floating-point numbers, as in x.float() / 255"
    if x.dim() == 1:
        return "they have no axis for the numbers of an input; where each is one number, give x[:, None]"
    return wrong_size(network.modules(), x.shape) or f"{str(problem).splitlines()[0]} (of {len(x)} of them)"


def _begins_linear(network: nn.Module) -> bool:
    for layer in network.modules():
        if not isinstance(layer, nn.Sequential | nn.Flatten | Normalize | Scale):
            return isinstance(layer, nn.Linear)
    return False


def _refuse_blind(loss: Loss, form: Form, outputs: Tensor, y: Tensor) -> None:
    """Refuse a loss that is 0 whatever one output says, as cross-entropy is: its softmax of one number is 1."""
    if outputs.shape[1:] != (1,):
        return
    some = 3.0 * torch.randn_like(outputs)
    with torch.no_grad():
        values = [float(compare(loss, given, form(given, y))) for given in (some, -some)]
    if values == [0.0, 0.0]:
        raise TightlipError(
            "the loss is 0 whatever the network's one output says: cross-entropy needs an output for each class, two "
            "at least; for numbers give mse_loss, for two classes binary_cross_entropy_with_logits"
        )


def _alike(outputs: Tensor, y: Tensor, other: Tensor, held_out: Batch) -> Batch:
    """Validation data in the form of the training data: a column and a vector of targets are one."""
    x, held = held_out
    shapes = [[n for n in t.shape[1:] if n != 1] for t in (y, held)]
    if shapes[0] != shapes[1] or y.dtype != held.dtype or outputs.shape[1:] != other.shape[1:]:
        kinds = [f"{tuple(t.shape[1:])} of {t.dtype}" for t in (y, held)]
        raise TightlipError(
            f"training targets are {kinds[0]} and validation targets {kinds[1]} per example, outputs "
            f"{tuple(outputs.shape[1:])} and {tuple(other.shape[1:])}: give both parts one form"
        )
    return x, held.reshape(len(held), *y.shape[1:])


def _try_labels(network: nn.Module, loss: Loss, form: Form, outputs: Tensor, part: Batch) -> None:
    """Let the loss say whether it knows labels that are not classes of the network, such as one to be ignored."""
    x, y = part
    if are_labels(outputs, y) and not is_classification(outputs, y):
        each = y.reshape(len(y), -1)
        rows = torch.stack([each.amin(1).argmin(), each.amax(1).argmax()])
        compare(loss, predict(network, x[rows]), form(outputs, y[rows]))
