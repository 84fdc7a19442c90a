"""Programs of ``torch.export`` as graphs of ours: `load_exported` reads a .pt2 file and runs nothing in it."""

from .program import load_exported

__all__ = ["load_exported"]
