"""`convert`: an ordinary network becomes one with a constant, and a table says what was changed and why."""

from . import activations as activations  # registers what they become
from . import normalizations as normalizations
from . import pooling as pooling
from . import weights as weights
from .convert import convert
from .registry import Change, Place, conversion
from .table import Converted, Row

__all__ = ["Change", "Converted", "Place", "Row", "conversion", "convert"]
