"""The commands on a trained network: `nodepert evaluate` and `nodepert predict`."""

from __future__ import annotations

import csv
import io
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nodepert.cli.options import Flat
from nodepert.cli.output import Output
from nodepert.errors import UserError
from nodepert.studies.store.records import check_target, write_whole
from nodepert.training.metrics import metric_of

if TYPE_CHECKING:
    from nodepert.studies.result import Result

TRAINED = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
FOLDER = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]


def evaluate(
    run: TRAINED,
    dataset: Annotated[str | None, tyro.conf.arg(metavar="SPEC")] = None,
    out: Path = Path("runs"),
    data_dir: FOLDER = None,
    output: Flat[Output] = Output(),
) -> None:
    """Evaluate a trained network on a data set: accuracy and loss on both splits.

    Example: nodepert evaluate digits.npz --dataset 'digits(test=100)'

    Args:
        run: A run's folder or its id, or a file that Result.save wrote.
        dataset: Data set, as a spec. Default: that of the run.
        out: Directory of all results, where an id is looked up.
        data_dir: Folder of the data files.
        output: What is printed.
    """
    found = _loaded(run, out, data_dir).evaluate(dataset, data_dir)

    def text() -> None:
        for name, value in found.items():
            metric = metric_of(name)
            print(f"{metric.label}: {value:{metric.form}}{f' {metric.unit}' if metric.unit else ''}")

    output.show(text, lambda: found)


def predict(
    run: TRAINED,
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")],
    to: Annotated[Path | None, tyro.conf.arg(metavar="CSV")] = None,
    outputs: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    out: Path = Path("runs"),
    data_dir: FOLDER = None,
    output: Flat[Output] = Output(),
) -> None:
    """Predict with a trained network: a row per example, with its index and the predicted class.

    Inputs are in the units of the training data (pixels from 0 to 255 of images), and are standardised as in training.
    Columns of a table with a heading are those of the same names in the training data, if these were a table.

    Example: nodepert predict digits.npz new.npy --to predictions.csv

    Args:
        run: A run's folder or its id, or a file that Result.save wrote.
        file: Inputs: .npy, .npz (its only array, or x), .csv or .parquet (an example per row), an image or a folder of
            images.
        to: The table, .csv, in an existing directory; only a table of predictions is replaced. Default: print it.
        outputs: Add the outputs of the network.
        out: Directory of all results, where an id is looked up.
        data_dir: Folder of the data files, which only runs of version 0.1 need.
        output: What is printed. With --json the rows of the table.
    """
    from nodepert.data.examples import read_examples

    if to:
        check_target(to, ".csv", heads=("index,prediction", "index,file,prediction"))
        if to.exists() and file.exists() and to.samefile(file):  # predictions may be inputs of another network
            raise UserError(f"--to {to} is the file of the inputs; choose another path")
    result = _loaded(run, out, data_dir)
    signature = result.signature
    x, names = read_examples(file, signature.shape, signature.columns)
    found = result.outputs(x)
    predictions = signature.predictions(found)
    columns = {"index": range(len(x)), **({"file": names} if names else {})}
    columns |= _columns("prediction", signature.classes[predictions] if signature.has_classes else predictions)
    columns |= _columns("output", found) if outputs else {}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    if to:
        write_whole(to, buffer.getvalue())

    def text() -> None:
        if not to:
            sys.stdout.write(buffer.getvalue())
        elif not output.quiet:
            print(f"{to}: predictions of {len(x):,} example{'s' * (len(x) != 1)}")

    output.show(text, lambda: [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def _columns(name: str, array: Any) -> dict[str, Any]:
    """One column per number of an example: "output_2", in time "output_0_2" of step 0."""
    places = product(*map(range, array.shape[1:]))
    return {"_".join([name, *map(str, at)]): array[:, *at] for at in places}


def _loaded(run: str, out: Path, data_dir: Path | None) -> Result:
    from nodepert.studies.load import load
    from nodepert.training import devices

    devices.start()
    return load(run, out=out, data_dir=data_dir)
