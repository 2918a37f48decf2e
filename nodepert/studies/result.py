"""The result of a run: its rows and its trained network, which predicts, is evaluated, saved and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from nodepert.core import Model, Params
from nodepert.data import Dataset, load_dataset
from nodepert.data.signature import Signature
from nodepert.errors import UserError
from nodepert.registry import short
from nodepert.studies.own_data import own_data
from nodepert.studies.run import Run, from_config
from nodepert.studies.store import network_file
from nodepert.studies.store.records import as_path, check_target
from nodepert.studies.store.run_folder import succeeded, versions
from nodepert.training.configuration import settings
from nodepert.training.metrics import Row, final, in_words, score_of
from nodepert.training.predictor import Trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 20  # results in the repr of a list


class Result:
    """The result of a run: of `npt.train`, also where a saved run is read back, and of `npt.load`.

    `rows` has a row per epoch, `status` is "finished", "stopped at epoch e" or "diverged at epoch e", `folder` is where
    the run is saved. The network is that of the last epoch, with a validation split that of the best `epoch` so far.

    Examples:
        >>> import nodepert as npt
        >>> result = npt.train(npt.Run(dataset="digits", network="fc(width=10)", epochs=1))
        >>> digits = npt.load_dataset("digits")
        >>> result.predict(digits.test_x[:5]).shape
        (5,)
        >>> result.save("digits.npz")
        PosixPath('digits.npz')
    """

    def __init__(
        self,
        run: Run | Mapping[str, Any],
        rows: list[Row],
        status: str,
        trained: Trained | Callable[[], Trained | None] | None = None,
        folder: Path | None = None,
        facts: Mapping[str, Any] | None = None,
        new: bool = False,
    ):
        self.rows, self.status, self.folder = rows, status, folder
        self.config: dict[str, Any] = run.config if isinstance(run, Run) else dict(run)
        """The configuration of the run, every default written out."""
        self._run, self._source, self._facts, self._new = run, trained, facts or {}, new

    @cached_property
    def run(self) -> Run:
        """The run. Raises UserError where it names what is not registered in this process; predicting needs no run."""
        return self._run if isinstance(self._run, Run) else from_config(self.config)

    @property
    def test_acc(self) -> float:
        """Test accuracy of the network, per cent."""
        return final(self.rows)["test_acc"]

    @property
    def epoch(self) -> int:
        """The epoch after which the network is taken: with a validation split the one with the best validation score
        (val_acc, val_r2, val_f1, or else val_loss), else the last."""
        return final(self.rows)["epoch"]

    @property
    def score(self) -> float:
        """The metric by which runs of this task are compared, of the network: test accuracy, R2, F1."""
        return final(self.rows)[score_of(self.rows[-1])]

    @property
    def read_back(self) -> bool:
        """Whether this is a saved result, and nothing was trained."""
        return callable(self._source) and not self._new

    @property
    def params(self) -> Params | None:
        """The parameters of the trained network; None where none are saved. Raises UserError where they are corrupt."""
        return self._found.params if self._found else None

    @property
    def model(self) -> Model:
        """The trained network as functions of `params`. Raises UserError where none is saved."""
        return self._trained.predictor.model

    @cached_property
    def _found(self) -> Trained | None:
        return self._source() if callable(self._source) else self._source

    @property
    def _trained(self) -> Trained:
        if self._found:
            return self._found
        if self.folder:
            raise UserError(f"there is no network in {self.folder}: it has no checkpoint; train the run under another "
                            "name")  # fmt: skip
        raise UserError(f"this result has no trained network ({self.status}): train the run, or load it in the process "
                        "that writes files")  # fmt: skip

    @property
    def signature(self) -> Signature:
        """What the network takes and gives, by its training data."""
        return self._trained.predictor.signature

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.signature.shape

    @property
    def classes(self) -> np.ndarray:
        """The labels of the classes, in the order of the outputs: those of the target column of a table, else 0, 1, 2,
        ... Raises UserError for a network that predicts no classes."""
        if not self.signature.has_classes:
            raise UserError(f"this network predicts no classes: its targets are {self.signature.task}")
        return self.signature.classes

    def predict(self, x: Any) -> np.ndarray:
        """Predict the targets of examples.

        Args:
            x: Inputs, (N, ...), in the units of the training data: they are standardised as in training. Any N. Where
                these were a table, also a DataFrame, whose columns are matched by name.

        Returns:
            By the task of the training data: class indices, (N,), whose labels are `result.classes[indices]`; values in
            their own units, (N,) or (N, n); labels, 0 or 1, (N, n). In time, for every step: class indices, (N, T);
            values, (N, T) or (N, T, n).

        Raises:
            UserError: For another shape, dtype or column, and where no network is saved.
        """
        return self._trained.predictor.predict(self._trained.params, x)

    def outputs(self, x: Any) -> np.ndarray:
        """The outputs of the network, (N, n), before any sigmoid or softmax of the loss, and of standardised values.
        `x` as for `predict`."""
        return self._trained.predictor.outputs(self._trained.params, x)

    def evaluate(
        self, data: Dataset | str | tuple[Any, Any] | None = None, data_dir: str | Path | None = None
    ) -> dict[str, float]:
        """Evaluate the network on data, standardised with the statistics of its training data.

        Args:
            data: A `Dataset`, a spec such as "mnist(test=1000)", or a pair (x, y), which counts as a test split.
                Default: the data set of the run. Columns and labels of a table are matched by name, also those of a
                pair; where labels are texts, y may be class indices.
            data_dir: Folder of the data files.

        Returns:
            {"train_acc": ..., "test_loss": ...}, in the units of `rows`: on the run's own data, the values of its row
            of this `epoch`; of a pair, those of the test split.

        Raises:
            UserError: For data that the network does not fit, where no network is saved, and where the data set of the
                run is not the one of its training any more.
        """
        predictor, params = self._trained
        if data is None:
            data = own_data(self.config, self._facts.get("data"), data_dir)
        elif isinstance(data, str):
            data = load_dataset(data, data_dir)
        if isinstance(data, Dataset):
            return predictor.evaluate(params, data)
        if isinstance(data, tuple | list) and len(data) == 2:
            return predictor.evaluate_pair(params, *data)
        raise UserError(f"evaluate takes a Dataset, a spec or a pair (x, y); got {type(data).__name__}")

    def standardised(self, x: Any) -> np.ndarray:
        """Inputs as the network receives them, float32; `x` as for `predict`."""
        return self.signature.standardised(x)

    def module(self) -> Any:
        """A Flax or Equinox network with the trained parameters: the variables of a linen module, an nnx module, an
        Equinox module. It takes `standardised(x)`. Raises UserError for a network that is neither."""
        predictor, params = self._trained
        if not predictor.model.module:
            raise UserError(f"{predictor.rule or predictor.network} is not a Flax or Equinox network as it was given; "
                            "result.params has its parameters")  # fmt: skip
        return predictor.model.module(params)

    def save(self, path: str | Path) -> Path:
        """Save the network, with what it needs to predict, the rows and the configuration, as one .npz file.

        `npt.load` reads it in any folder, without the data. Nothing in it is pickled.

        Args:
            path: The file, .npz, in an existing folder.

        Returns:
            The path.

        Raises:
            UserError: If it cannot be written, or there is no network.
        """
        path = as_path(path)
        check_target(path, ".npz")
        predictor, params = self._trained
        arrays = dict(zip(predictor.names, map(np.asarray, jax.tree.leaves(params)), strict=True))
        record = {"config": self.config, "status": self.status, "network": predictor.to_json(), "rows": self.rows}
        facts = {"versions": versions(), "settings": settings()} | dict(self._facts)
        network_file.write(path, record | {"facts": facts}, arrays)
        return path

    def plot(self) -> Figure:
        """The learning curves, as a matplotlib figure: `result.plot().savefig("curves.png")`. Raises UserError where
        there are no rows."""
        from nodepert.studies.curves import figure_of

        if not self.rows:
            raise UserError(f"there is nothing to draw: this result has no rows ({self.status})")
        return figure_of({self._text("rule"): self.rows}, f"{self._text('dataset')}, {self._text('network')}")

    def _text(self, kind: str) -> str:
        """A spec in its short form; as it is where its name is not registered."""
        try:
            return str(short(kind, self.config[kind]))
        except UserError:
            return self.config[kind]

    def __repr__(self) -> str:
        last = final(self.rows)
        score = score_of(last)
        measured = [" ".join(in_words(score, last[score]).split())] if score in last else []
        where = f"{self._text('rule')} on {self._text('dataset')}, {self._text('network')}, seed {self.config['seed']}"
        epoch = [f"epoch {last['epoch']}"] if last and succeeded(self.status) else []
        return f"<Result: {'; '.join([where, ', '.join([self.status, *epoch, *measured])])}>"


class Results(list[Result]):
    """A list of results that prints one in a line."""

    def __repr__(self) -> str:
        more = [f"... {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return "[" + ",\n ".join([*map(repr, self[:SHOWN]), *more]) + "]"
