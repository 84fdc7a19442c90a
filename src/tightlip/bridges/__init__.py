"""Bridges between tightlip and what people have already: networks of their own."""
