"""From this library to others: what is proven here, in the formats that they read."""
