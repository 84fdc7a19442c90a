"""The one error type of the library: something that the person at the keyboard can mend; and how to install more."""


class TightlipError(ValueError):
    """What a user can mend: one sentence that says what was asked, what is possible and what to do."""


def install(extra: str) -> str:
    """The command that brings what an extra needs, in words: the library is installed from its clone.

    >>> print(install("onnx"))
    pip install -e '.[onnx]' in the clone of tightlip
    """
    return f"pip install -e '.[{extra}]' in the clone of tightlip"
