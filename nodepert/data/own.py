"""Data of the user's own as a data set: arrays, and DataFrames, whose columns and labels have names."""

from __future__ import annotations

from typing import Any

import numpy as np

from nodepert.data import remarks, targets
from nodepert.data.checks import Arrays, DataError, check_split
from nodepert.data.dataset import Dataset, build
from nodepert.data.schema import Column, Columns, check_aligned, columns_of, frame_of, shown
from nodepert.data.tables import split


def make_dataset(
    train_x: Any,
    train_y: Any,
    test_x: Any,
    test_y: Any,
    *,
    name: str = "own",
    classes: int | None = None,
    task: str | None = None,
    tokens: bool = False,
) -> Dataset:
    """Make a data set from arrays, or DataFrames.

    A `Run` takes it as it is; `npt.register("dataset", "mine", data)` gives it a name for specs. The training
    step standardises inputs by the mean and standard deviation of each channel, or feature, over the training inputs.

    Args:
        train_x: Training inputs, (N, ..., C), such as images (N, H, W, C). uint8 stays uint8; others become float32,
            unless that would lose the spread of a feature (a Unix time). A DataFrame has columns of numbers, or of
            texts, each of which is an input of 0 and 1 per text; others are matched with it by the names of columns.
        train_y: Training targets: labels, (N,), integers from 0, or texts or booleans, which are numbered in their
            order; values, floats (N,) or (N, ...), which are standardised; several labels per example, 0 or 1,
            integers (N, n); probabilities, floats (N, n); with task="steps" a class for every time step, integers
            (N, T); with task="series" values for every time step, floats (N, T, n). A step that is masked (np.ma), or
            whose class is -1, is not graded.
        test_x: Test inputs, as the training inputs.
        test_y: Test targets.
        name: Name in messages and records.
        classes: Number of classes. Default: the largest label + 1, with a warning if a class has no example.
        task: "classes", "values", "multilabel", "probabilities", "steps" or "series". Default: one of the first four,
            by type and shape of the targets; floats are probabilities if every row has the sum 1.
        tokens: Whether inputs are tokens, whole numbers (N, T), which are not standardised.

    Returns:
        The `Dataset`.

    Raises:
        DataError: Shapes or dtypes do not match, a value is not finite, or a label is out of range or far above the
            number of examples.

    Examples:
        >>> import numpy as np, nodepert as npt
        >>> x, y = np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) % 3
        >>> npt.make_dataset(x[:15], y[:15], x[15:], y[15:]).classes
        3
    """
    source = f"arrays of '{name}'"
    train, test = (f"{source}, {split} split" for split in ("train", "test"))
    check_aligned(train, train_x, train_y)
    check_aligned(test, test_x, test_y)
    train_x, columns = _inputs(train, train_x)
    test_x, _ = _inputs(test, test_x, columns)
    arrays, names = _arrays(source, Arrays(train_x, train_y, test_x, test_y), task in targets.IN_TIME), ()
    if task in (None, "classes"):
        train_y, names = _labels(train, arrays.train_y)
        arrays = arrays._replace(train_y=train_y, test_y=_labels(test, arrays.test_y, names)[0])
    task = targets.implied(arrays.train_y, arrays.test_y) if task is None else task
    outputs = _outputs(source, arrays, task, len(names) or None if classes is None else classes)
    if len(names) not in (0, outputs):
        raise DataError(f"{source}: classes={classes}, but the targets have {len(names)} labels: {shown(names)}")
    data = build(name, arrays, outputs, source, task=task, tokens=tokens)
    remarks.remark_inputs(source, data.train_x)
    remarks.remark_targets(source, data.train_y, data.test_y, task, 0 if classes else outputs)
    return data._replace(columns=columns, names=names)


def drawn(x: Any, y: Any, share: float) -> Dataset:
    """The data set of examples (N, ...) and their targets, of which a share, drawn with a fixed seed, are the test
    split. Raises DataError, where rows are those of the examples as given."""
    source = "arrays of 'own'"
    check_aligned(source, x, y)
    given, (x, columns) = x, _inputs(source, x)
    x, y, *_ = _arrays(source, Arrays(x, y, x, y))
    if not (x.ndim and y.ndim and len(x) == len(y) > 1):
        raise DataError(f"x and y need as many inputs as targets, at least two; got shapes {np.shape(given)} and "
                        f"{y.shape}")  # fmt: skip
    y, names = _labels(source, y)
    task = targets.implied(y, y)
    outputs = _outputs(source, Arrays(x, y, x, y), task, len(names) or None)
    check_split("given", x, y, outputs, source, task)
    data = make_dataset(*split(x, y, max(1, round(share * len(y)))), classes=len(names) or None)
    return data._replace(columns=columns, names=names)


def _inputs(source: str, x: Any, columns: Columns | None = None) -> tuple[Any, Columns | None]:
    """The inputs, and the columns of a DataFrame, which are by default those of the training split."""
    if (frame := frame_of(x)) is None:
        return x, None
    columns = columns or columns_of(source, frame)
    return columns.encoded(source, frame), columns


def _labels(source: str, y: np.ndarray, names: tuple[str, ...] = ()) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels that are texts or booleans, (N,), as class indices, and the names of the classes, by default the labels in
    their order; other targets as they are, and no names."""
    labels = y[:, 0] if y.shape[1:] == (1,) and y.dtype.kind in "OUT" else y  # a DataFrame of one column
    if labels.ndim != 1 or labels.dtype.kind not in "bOUT":
        return y, ()
    texts, flags = (np.array([isinstance(one, kind) for one in labels], bool) for kind in (str, bool | np.bool_))
    if texts.any() and not texts.all():
        row = int(texts.argmin())
        raise DataError(f"{source}: the label in row {row + 1} is {labels[row]!r}, and others are texts")
    if not len(labels) or not (texts.all() or flags.all()):
        return y, ()
    found = labels.astype(str)
    column = Column("y", "texts", names or tuple(map(str, np.unique(found))))
    return column.index(source, found), column.texts


def _outputs(source: str, arrays: Arrays, task: str, classes: int | None) -> int:
    """The outputs of a network: the classes that are given or implied, or the size of a target."""
    if classes is not None:
        if not (isinstance(classes, int | np.integer) and 0 < classes < 2**31):
            raise DataError(f"{source}: classes must be a whole number from 1 to 2147483647; got {classes!r}")
        return int(classes)
    if task not in ("classes", "steps"):
        return targets.size(arrays.train_y, task)
    try:
        return remarks.classes_implied(arrays.train_y, arrays.test_y)
    except ValueError as error:
        raise DataError(f"{source}: {error}") from None


def _arrays(source: str, given: Arrays, in_time: bool = False) -> Arrays:
    """The arrays in numpy. Raises DataError for rows of several lengths, and for masked values, but targets in time."""
    for name, array in given._asdict().items():
        if np.ma.is_masked(array) and not (in_time and name.endswith("_y")):
            steps = ", or give task='steps' or task='series', where masked steps are not graded" * name.endswith("_y")
            raise DataError(f"{source}: {name} has masked values; leave these examples out, or fill them{steps}")
    try:
        return Arrays(*(array if np.ma.is_masked(array) else np.asarray(array) for array in given))
    except ValueError as error:
        raise DataError(f"{source} must be arrays of numbers: {error}") from None
