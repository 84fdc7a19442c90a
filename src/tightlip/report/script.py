"""The one script that a page may hold: a file of ours, which the page's policy allows by its hash."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup


@dataclass(frozen=True)
class Script:
    """The page's one script; its text holds nothing of the rows, and the page's policy allows nothing else."""

    text: Markup

    @property
    def source(self) -> str:
        """What the policy calls it."""
        digest = hashlib.sha256(self.text.encode("utf-8")).digest()
        return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def script(name: str) -> Script:
    """`surface.js` turns surfaces; `explorer.js` shows what is certified at an ε, and examples."""
    return Script(Markup(Path(__file__).with_name(name).read_text(encoding="utf-8")))  # our own: no rows in it
