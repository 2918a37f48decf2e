"""Data as a trained network takes them: columns and classes that have names are matched by name, not by position."""

from __future__ import annotations

from typing import Any

import numpy as np

from nodepert.data.checks import DataError
from nodepert.data.dataset import Dataset
from nodepert.data.schema import Column, frame_of, no_column, shown
from nodepert.data.signature import Signature


def matched(own: Signature, data: Dataset) -> Dataset:
    """The data set with the columns and the classes of a network, in its order. Raises DataError where a column is
    missing, or where a text or a label is not in the training data."""
    xs, ys = ({split: pair[i] for split, pair in data.splits.items()} for i in (0, 1))
    if own.columns and data.columns:
        xs = own.columns.converted(data.name, data.columns, xs)
        if own.task == data.task == "values":
            order = _order(own, data)
            ys = {split: y[:, order] for split, y in ys.items()}
    if own.has_classes and data.task == own.task and data.names and data.names != own.names:
        ys = {split: _renumbered(own, data.name, data.names, y) for split, y in ys.items()}
        if data.tokens:  # the classes are the tokens of the next step
            xs = {split: _renumbered(own, data.name, data.names, x) for split, x in xs.items()}
        data = data._replace(names=own.names, classes=own.outputs)
    return data._replace(**{f"{split}_x": x for split, x in xs.items()}, **{f"{split}_y": y for split, y in ys.items()})


def matched_targets(own: Signature, y: Any) -> Any:
    """Targets as a network takes them: columns of a DataFrame are matched by name, and labels are the indices of their
    classes. Labels are texts, and numbers where those of the training data are a column of numbers. Raises DataError
    for a column that is missing, and for another label."""
    columns, frame = [c.name for c in own.columns.targets] if own.columns else [], frame_of(y)
    if columns and frame is not None:
        if len(columns) == len(frame.columns) == 1:  # it may have another name
            columns = list(frame.columns)
        if missing := [name for name in columns if name not in frame]:
            raise no_column("targets", missing[0], list(frame.columns))
        y = frame[columns] if len(columns) > 1 else frame[columns[0]]
    y = y if np.ma.is_masked(y) else np.asarray(y)
    if not own.has_classes:
        return y
    if y.dtype.kind in "fu" and not (y % 1).any():
        y = y.astype(np.int64)
    labels = own.names and own.classes.dtype.kind == y.dtype.kind  # numbers or flags, which name the classes
    if not labels and y.dtype.kind not in "OUST":
        return y.astype(np.int64) if y.dtype.kind == "b" else y
    if y.ndim == 1:
        target = Column(columns[0] if columns else "y", texts=tuple(map(str, own.classes)))
        return target.index("these examples", y.astype(str))
    names, codes = np.unique(y.astype(str), return_inverse=True)
    return _renumbered(own, "these examples", names, codes.reshape(y.shape))


def _renumbered(own: Signature, source: str, names: Any, codes: np.ndarray) -> np.ndarray:
    """Codes that number these names, as the network numbers them; -1 stays."""
    there = [*map(str, own.classes)]
    number = {name: i for i, name in enumerate(there)}
    found = np.array([*(number.get(str(name), -2) for name in names), -1])[codes.astype(int)]
    if (found == -2).any():
        unknown = names[int(codes[found == -2].flat[0])]
        raise DataError(f"{source}: the label '{unknown}' is not in the training data, which have: {shown(there)}")
    return found.astype(codes.dtype)


def _order(own: Signature, data: Dataset) -> list[int]:
    """Where the values of a network are among those of a data set. One value may have another name."""
    trained, given = ([c.name for c in of.columns.targets] if of.columns else [] for of in (own, data))
    if not trained or not given or len(trained) == len(given) == 1:
        return [*range(data.outputs)]
    if {*trained} != {*given}:
        raise DataError(f"the targets of {data.name} are {shown(given)}; this network was trained on {shown(trained)}")
    return [given.index(name) for name in trained]
