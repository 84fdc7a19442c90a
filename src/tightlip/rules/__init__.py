"""The rules of torch's own types, registered when the package is imported; each file says what it proves and why."""

from . import activations, convolution, elementwise, linear, norm, shape

__all__ = ["activations", "convolution", "elementwise", "linear", "norm", "shape"]
