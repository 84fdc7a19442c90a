"""Experiments: one file per table or figure, each a `Config` and a `run`. Nothing below imports them."""
