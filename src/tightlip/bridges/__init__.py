"""Bridges: networks that people have already, converted; what is proven here, in the formats that others read."""
