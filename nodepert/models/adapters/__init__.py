"""Adapters that turn unmodified flax (linen, nnx) and Equinox networks into models."""
