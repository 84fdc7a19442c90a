"""The one error type of the library: something that the person at the keyboard can mend."""


class TightlipError(ValueError):
    """What a user can mend: one sentence that says what was asked, what is possible and what to do."""
