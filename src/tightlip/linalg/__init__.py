"""Pure tensor functions: no modules, no state, batched over leading dimensions."""
