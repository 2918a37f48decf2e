"""How a command ends: what the user can fix is one line on stderr with status 2; 130 and 141 as usual."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from nodepert.errors import UserError, has_cwd, reason
from nodepert.studies.output import guarded
from nodepert.studies.stopping import Stopped

READER_GONE = 141  # of a process that SIGPIPE ended: 128 + 13


@contextmanager
def reported() -> Iterator[None]:
    """End the process as a user expects.

    An error that they can fix is one line and status 2; Ctrl-C is status 130. Output that cannot be written does not
    end a command: it is reported at the end, with status 141 if the reader has closed the pipe (`nodepert ... | head`).
    """
    with guarded(report=False):
        out: Any = sys.stdout
        err: Any = sys.stderr
        try:
            with _errors_in_a_line():
                try:
                    yield
                except SystemExit as stop:  # of --help, for one
                    if not stop.code:
                        _check(out)
                    raise
                _check(out)
        finally:
            for stream in (out, err):
                stream.flush()
                if stream.lost or stream.blocked:
                    stream.silence()


def fail(error: object) -> NoReturn:
    """One clear line on stderr, exit status 2."""
    print("nodepert: error: " + " ".join(str(error).split()), file=sys.stderr)
    sys.exit(2)


@contextmanager
def _errors_in_a_line() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        fail(error)
    except ValueError as error:  # of JAX, as it is imported, for one of its variables in the environment
        if not re.search("for (JAX flag|environment) ", str(error)):
            raise
        fail(error)
    except FileNotFoundError as error:
        if has_cwd():
            raise
        fail(reason(error))
    except (KeyboardInterrupt, Stopped) as stop:
        more = f"; {stop}" if isinstance(stop, Stopped) else ""
        print(f"nodepert: interrupted{more}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # at once: an ordinary exit while XLA compiles or computes can crash
    except RuntimeError as error:  # as XLA reports it
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        fail("out of memory; a smaller network, batchsize or number of samples needs less")
    except Exception as error:
        if not type(error).__name__.endswith("FloatingPointError"):  # that of a compiled program is private to JAX
            raise
        fail(f"a value is not finite ({error}); without JAX_DEBUG_NANS and JAX_DEBUG_INFS the run ends as diverged")


def _check(out: Any) -> None:
    """Exit with an error if standard output was lost."""
    out.flush()
    if out.lost and out.lost.errno == errno.EPIPE:
        sys.exit(READER_GONE)
    if out.lost:
        fail(f"cannot write output: {out.lost.strerror}")
