"""Networks of other libraries as models, unmodified: flax (linen and nnx) and Equinox."""
