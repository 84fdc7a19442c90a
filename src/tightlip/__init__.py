"""tightlip: PyTorch functions whose Lipschitz constant is proven.

Six verbs: `constrain` a layer (or build an `mlp`), `fit` a network, `freeze` it, audit it with `lipschitz`, `certify`
inputs, and `save` or `load` what came out. `tightlip.data` holds the data sets, `tightlip.constructions` the theorems
as code, `tightlip.transport` distributions of known distance, `tightlip.experiments` the studies.

The names are those of `public`, which is imported when the first of them is asked for: torch takes seconds, and
`tightlip --help` needs none of it.
"""

from typing import TYPE_CHECKING, Any

from . import interruption as interruption  # before those seconds
from .choices import hint

__version__ = "0.2.0"

if TYPE_CHECKING:
    from .public import *  # noqa: F403  for type checkers, who see what is in it
    from .public import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        """A public name, or a module of the package."""
        if name == "public" or (name.startswith("__") and name != "__all__"):
            raise AttributeError(f"module 'tightlip' has no attribute {name!r}")
        from . import public

        here = globals()
        missing = [known for known in (*public.__all__, "__all__") if known not in here]
        here.update({known: getattr(public, known) for known in missing})
        if name not in here:
            raise AttributeError(f"module 'tightlip' has no attribute {name!r}{hint(name, public.__all__)}")
        return here[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
