"""What an experiment's module says about itself: its docstring, the strings below its options, its metrics."""

import ast
import inspect
import itertools
import textwrap
from typing import Any

from ..records import Definition, Metric


def name_of(experiment: Any) -> str:
    """The last part of the module's name."""
    return experiment.__name__.rpartition(".")[2]


def summary_of(experiment: Any) -> str:
    """The first line of the module's docstring."""
    return (experiment.__doc__ or "").strip().partition("\n")[0]


def about(experiment: Any) -> str:
    """The rest of the docstring, as plain text."""
    text = (experiment.__doc__ or "").strip().partition("\n")[2]
    return " ".join(text.replace("`", "").replace("*", "").split())


def definition_of(experiment: Any) -> Definition:
    """All of it: also each option (the string below the field of Config), each metric, each column of the curve."""
    metrics = {name: _metric(said) for name, said in getattr(experiment, "METRICS", {}).items()}
    curves = dict(getattr(experiment, "CURVES", {}))
    return Definition(
        name_of(experiment), summary_of(experiment), about(experiment), _words_below(experiment.Config), metrics, curves
    )


def _metric(said: Metric | str) -> Metric:
    return Metric(said) if isinstance(said, str) else said


def _words_below(config: type) -> dict[str, str]:
    """The string below each field, also of classes that it is derived from."""
    return {name: words for kind in reversed(config.__mro__) for name, words in _own_words(kind).items()}


def _own_words(config: type) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(config)))
    except (OSError, TypeError):  # a class without a file
        return {}
    body = next((node.body for node in tree.body if isinstance(node, ast.ClassDef)), [])
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
