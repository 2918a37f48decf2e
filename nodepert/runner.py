"""Carry out a run: build what its specs name, train, and (for the command line) write as it goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nodepert.config import Run, checked
from nodepert.core import Loss, Model, Params, Rule
from nodepert.data import Dataset, load_dataset
from nodepert.data.dataset import fingerprint
from nodepert.registry import UserError, check, make, resolve
from nodepert.store import FINISHED, INTERRUPTED, RunFolder, open_run
from nodepert.training import Epochs, Hyper, Row, diverged, fit, rehearse

OnRow = Callable[[Row], Any]


class Result(NamedTuple):
    """What came of a run: `rows` per epoch, `status` ("finished" or "diverged at epoch e"), final `params`."""

    run: Run
    rows: list[Row]
    status: str
    params: Params | None = None  # None where the rows were read back
    folder: Path | None = None

    @property
    def test_acc(self) -> float:
        """Test accuracy after the last epoch, per cent."""
        return self.rows[-1]["test_acc"]


def make_model(spec: str, input_shape: tuple[int, ...], classes: int) -> Model:
    """A network by spec: `make_model("fc(width=100)", (28, 28, 1), 10)`. Raises UserError."""
    return make("network", spec, input_shape, classes)


def make_loss(spec: str) -> Loss:
    """A per-example loss by spec: `make_loss("cross-entropy")(outputs, targets) -> (B,)`. Raises UserError."""
    spec_ = check("loss", spec)
    return partial(resolve("loss", spec_.name), **dict(spec_.kwargs))


def make_rule(spec: str, model: Model, loss: Loss) -> Rule:
    """A learning rule by spec: `make_rule("np(sigma=1e-3)", model, loss)`. Raises UserError."""
    return make("rule", spec, model, loss)


class Built(NamedTuple):
    """A run's objects, as `fit` takes them."""

    model: Model
    loss: Loss
    data: Dataset
    hyper: Hyper


def build(run: Run, data_dir: str | Path | None = None, data: Dataset | None = None) -> Built:
    """Build what a run names. `data`, if given, is the run's data set, loaded before. Raises UserError."""
    run = checked(run)
    hyper, loss = _hyper(run), make_loss(run.loss)
    if data and data.name != check("dataset", run.dataset).name:
        raise UserError(f"these data are {data.name}, but the run's data set is {run.dataset}")
    if data is None:
        precheck(run)  # a wrong option is found before a missing or slow data set
        data = load_dataset(run.dataset, data_dir)
    return Built(make_model(run.network, data.train_x.shape[1:], data.classes), loss, data, hyper)


def precheck(run: Run) -> None:
    """Check all that can be checked before the data are there, on a stand-in for their shape. Raises UserError."""
    run = checked(run)
    model = make_model(run.network, (32, 32, 3), 10)
    batch = jax.ShapeDtypeStruct((2, 32, 32, 3), "float32"), jax.ShapeDtypeStruct((2,), "int32")
    rehearse(model, make_loss(run.loss), _hyper(run), batch, batchsize=run.batchsize, epochs=run.epochs)


def _hyper(run: Run) -> Hyper:
    return Hyper(check("rule", run.rule), check("optimizer", run.optimizer), run.lr, run.wd, run.seed)


def train(
    run: Run,
    *,
    data_dir: str | Path | None = None,
    data: Dataset | None = None,
    on_row: OnRow = lambda row: None,
    name: str | None = None,
    out: str | Path = "runs",
) -> Result:
    """Train one run and give its rows; `on_row` is called with each as it comes.

    With a `name` the run is also kept, in `<out>/<name>/<id>/`: metrics.csv is whole after every epoch, an
    interruption leaves what was reached, and a run that is finished there is not computed again.
    Raises UserError for anything in the run or the data that the user can put right.
    """
    if not isinstance(run, Run):
        raise UserError(f"train takes a run, as in npt.train(npt.Run(rule='np')); got {type(run).__name__}")
    built = build(run, data_dir, data)
    # `fit` complains about sizes and rates now, so that nothing is written for a run that cannot start.
    epochs = fit(*built, batchsize=run.batchsize, epochs=run.epochs)
    if name is None:
        return _carry_out(run, epochs, on_row)
    facts = {"device": device(), "source": built.data.source}
    with open_run(Path(out), name, run, fingerprint(built.data), **facts) as folder:
        if not folder.done:
            return _carry_out(run, epochs, on_row, folder)
        rows = folder.rows()
        for row in rows:
            on_row(row)
        return Result(run, rows, folder.status, folder=folder.path)


def _carry_out(run: Run, epochs: Epochs, on_row: OnRow, folder: RunFolder | None = None) -> Result:
    """Go through the epochs, and write each as it comes."""
    rows, params, status = [], None, INTERRUPTED
    try:
        for row, state in epochs:
            rows.append(row)
            params = state.params
            if folder:
                folder.write_rows(rows)
            on_row(row)
        status = f"diverged at epoch {rows[-1]['epoch']}" if diverged(rows[-1]) else FINISHED
    finally:
        if folder:
            folder.set_status(status)
    return Result(run, rows, status, params, folder.path if folder else None)


def device() -> str:
    """The device that computes, in words."""
    return f"{jax.default_backend()} ({jax.devices()[0].device_kind})"
