"""`fit`: one trainer for every supervised loss, that keeps the best epoch and survives being killed."""

from .measures import accuracy, predict
from .trainer import History, fit

__all__ = ["History", "accuracy", "fit", "predict"]
