"""For every test: a random key used twice is an error, and the working folder is the test's own."""

import jax
import pytest

jax.devices()  # JAX is started: no test decides how many CPU devices the next one has

jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_enable_compilation_cache", False)  # no test may depend on what an earlier one left there


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def strict_dtypes():
    """A silent mix of dtypes is an error (optax mixes them, so this is for tests of the core)."""
    with jax.numpy_dtype_promotion("strict"):
        yield
