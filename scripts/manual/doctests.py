"""Examples in docstrings are shown as what they are: what stands after `>>>` becomes a block of code."""

import re
from typing import Any

import griffe

PROMPT = re.compile(r"^>>> .*?(?=\n[ \t]*\n|\Z)", re.MULTILINE | re.DOTALL)
"""From a line that begins with a prompt to the next blank line."""


class Doctests(griffe.Extension):
    """Fences the examples of every docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """As each object is read."""
        if obj.docstring is not None:
            obj.docstring.value = PROMPT.sub(lambda match: f"```pycon\n{match.group()}\n```", obj.docstring.value)
