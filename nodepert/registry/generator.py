"""The generator of random keys: one, so that no result depends on jax_default_prng_impl."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

GENERATOR = "threefry2x32"


@contextmanager
def pinned() -> Iterator[None]:
    """Keys that are made inside, also by a user's code, have NodePert's generator. Decorates functions, too."""
    import jax  # not at the top: experiments are listed without it

    with jax.default_prng_impl(GENERATOR):
        yield
