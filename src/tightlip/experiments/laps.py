"""How long each stage of a run took."""

import time


class Laps:
    """Wall-clock seconds of each stage; training counts its epochs, so that a resumed run is not shorter."""

    def __init__(self) -> None:
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str, seconds: float | None = None) -> None:
        """The stage that ends now, or one that took ``seconds``."""
        now = time.perf_counter()
        self.laps[name] = round(now - self.last if seconds is None else seconds, 3)
        self.last = now

    def seconds(self) -> dict[str, float]:
        """By stage, and in total."""
        return {**self.laps, "total": round(sum(self.laps.values()), 3)}
