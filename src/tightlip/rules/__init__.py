"""The rules of torch's own types, registered when the package is imported; each file says what it proves and why."""

from . import activations, elementwise, linear, norm, shape

__all__ = ["activations", "elementwise", "linear", "norm", "shape"]
