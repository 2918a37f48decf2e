"""For every test: a random key used twice is an error, and the working folder is the test's own.

NODEPERT_TEST_CACHE=DIR keeps compiled programs in DIR between runs of the tests.
"""

import gc
import os
import signal
import tempfile

import jax
import pytest
from commands import work as work
from jax._src import compiler
from small import own as own
from threadpoolctl import threadpool_limits

from nodepert.diagnostics.conformance.common import hurried

CACHE = {"JAX_COMPILATION_CACHE_DIR": "", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05"}

jax.devices()  # JAX is started: no test decides how many CPU devices the next one has

jax.config.update("jax_debug_key_reuse", True)

if not hasattr(jax, "enable_x64"):  # jax 0.7
    from jax.experimental import enable_x64

    jax.enable_x64 = enable_x64

threadpool_limits(1, user_api="blas")  # two workers share two cores: more threads only wait

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell: commands that tests start hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    """What one process of this run compiled, the others load; later runs load it only with NODEPERT_TEST_CACHE."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = os.environ.get("NODEPERT_TEST_CACHE")
        if not folder:
            config.cache_of_programs = tempfile.TemporaryDirectory(prefix="nodepert-tests-")
            folder = config.cache_of_programs.name
        os.environ.update(CACHE | {"JAX_COMPILATION_CACHE_DIR": os.path.abspath(folder)})
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


def pytest_collection_finish(session):
    """What was imported stays, and tracing makes many objects that die at once: garbage is collected more rarely."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_unconfigure(config):
    if hasattr(config, "cache_of_programs"):
        config.cache_of_programs.cleanup()


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def quickly_compiled():
    """Programs of this module, and of processes that it starts, run once: optimising them would take longer."""
    options_of, quick = compiler.get_compile_options, hurried()

    def with_quick_options(*args, **kwargs):
        options = options_of(*args, **kwargs)
        options.env_option_overrides = [*options.env_option_overrides, *quick.items()]
        return options

    flags = [os.environ.get("XLA_FLAGS", ""), *(f"--{name}={value}".lower() for name, value in quick.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", with_quick_options)  # of every program: of eager operations too
        patch.setenv("XLA_FLAGS", " ".join(flags).strip())
        yield


@pytest.fixture
def strict_dtypes():
    """A silent mix of dtypes is an error (optax mixes them, so this is for tests of the core)."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def optimised():
    """Programs of this test are optimised, also in a module that compiles quickly: it reads what the compiler makes."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
