"""The signature of a data set: what a network that was trained on it takes and gives, without the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nodepert.data import schema
from nodepert.data.checks import not_finite
from nodepert.data.dataset import Dataset, is_wide, standardise
from nodepert.data.remarks import remark_range
from nodepert.errors import UserError
from nodepert.registry.entry import TASKS

WIDE = "longdouble"  # its name and size depend on the platform


class Signature(NamedTuple):
    """Inputs, as they are before standardising, and targets."""

    shape: tuple[int, ...]  # of one input
    dtype: str  # of the training inputs
    mean: np.ndarray  # (C,), as in the `Dataset`
    std: np.ndarray
    outputs: int  # of the network
    task: str = "classes"
    target_mean: np.ndarray | None = None  # as in the `Dataset`
    target_std: np.ndarray | None = None
    names: tuple[str, ...] = ()  # of the classes
    columns: schema.Columns | None = None  # of the table of the training data
    low: np.ndarray | None = None  # (C,), the range of the training inputs; None where an earlier version saved it
    high: np.ndarray | None = None

    @property
    def has_classes(self) -> bool:
        """Whether targets are class indices."""
        return self.task in ("classes", "steps")

    @property
    def classes(self) -> np.ndarray:
        """The labels of the classes in their order, as the training data have them."""
        labels = np.array(self.names if len(self.names) == self.outputs else range(self.outputs))
        flags = {*self.names} and {*self.names} <= {"False", "True"}
        kind = self.columns.targets[0].kind if self.columns and self.columns.targets else "flags" if flags else ""
        return labels == "True" if kind == "flags" else labels.astype(int) if kind == "whole" else labels

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """Inputs as the network receives them, float32."""
        return np.asarray(standardise(self.inputs(x), self.mean, self.std), np.float32)

    def inputs(self, x: Any) -> np.ndarray:
        """Examples in the units of the training inputs, checked: uint8, float32, or wider if the mean is; the columns
        of a DataFrame are matched by name. Raises UserError for another shape, dtype or column, and for values that are
        not finite."""
        if self.columns and (frame := schema.frame_of(x)) is not None:
            unnamed = [*frame.columns] == [*map(str, range(self.columns.size))]  # an array as a DataFrame
            x = frame.to_numpy() if unnamed else self.columns.encoded("inputs", frame)
        try:
            x = np.asarray(x)
        except ValueError:  # rows of several lengths
            raise UserError(f"inputs must be an array of shape (N, {self._shape})") from None
        if x.dtype.kind not in "fiu":
            named = "; give a DataFrame, whose columns are matched by name" if self.columns else ""
            raise UserError(f"inputs must be real numbers; got {x.dtype}{named}")
        if x.shape[1:] != self.shape or not x.ndim:
            hint = "; for one example give x[None]" if x.shape == self.shape else ""
            raise UserError(f"inputs must be of shape (N, {self._shape}); got {x.shape}{hint}")
        if x.dtype != np.uint8 and not is_wide(self.mean):
            with np.errstate(over="ignore"):
                x = x.astype(np.float32)
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise UserError(f"inputs contain nan or inf, or are too large for float32{not_finite(x)}")
        return x

    def remark(self, x: np.ndarray) -> None:
        """A warning if inputs, as of the training, seem to be in other units."""
        names = [c.name for c in self.columns.inputs for _ in range(c.size)] if self.columns else []
        if self.low is not None and self.high is not None:
            remark_range(x, self.low, self.high, names)

    def fits(self, data: Dataset) -> None:
        """Raise UserError for data of another shape or task, or of more classes than there are outputs."""
        if data.train_x.shape[1:] != self.shape:
            raise UserError(f"inputs of {data.name} are {data.train_x.shape[1:]}; this network takes {self.shape}")
        if data.task != self.task:
            raise UserError(f"targets of {data.name} are {data.task}; this network was trained on {self.task}")
        if data.outputs > self.outputs or (data.outputs < self.outputs and not self.has_classes):
            what = "classes" if self.has_classes else "targets per example"
            raise UserError(f"{data.name} has {data.outputs} {what}; this network has {self.outputs} outputs")

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """What the outputs (N, n) predict: the indices of classes, (N,); labels; or values in their own units, (N,) if
        n is 1. In time, of outputs (N, T, n), for every step. Raises UserError for outputs that are nan."""
        if np.isnan(outputs).any():
            raise UserError("outputs of this network are nan: its training has diverged, so it predicts nothing")
        if self.task == "multilabel":
            return (outputs > 0).astype(np.uint8)
        if self.target_mean is None or self.target_std is None:
            return outputs.argmax(-1)
        values = outputs * self.target_std + self.target_mean
        return values[..., 0] if self.outputs == 1 else values

    def to_json(self) -> dict[str, Any]:
        """Plain values, exact."""
        inputs = {"shape": [*self.shape], "dtype": self.dtype, "mean": _plain(self.mean), "std": _plain(self.std)}
        if self.low is not None and self.high is not None:
            inputs |= {"low": _plain(self.low), "high": _plain(self.high)}
        targets: dict[str, Any] = {"kind": self.task, "outputs": self.outputs}
        if self.target_mean is not None and self.target_std is not None:
            targets |= {"mean": _plain(self.target_mean), "std": _plain(self.target_std)}
        named = {"columns": self.columns.to_json()} if self.columns else {}
        return {"inputs": inputs, "targets": targets | ({"names": [*self.names]} if self.names else {})} | named

    @property
    def _shape(self) -> str:
        return ", ".join(map(str, self.shape))


def signature_of(data: Dataset) -> Signature:
    """The signature of a data set."""
    first = data.train_x.min(0), data.train_x.max(0)  # faster than all axes at once
    axes = tuple(range(first[0].ndim - 1))
    low, high = first[0].min(axes).astype(data.mean.dtype), first[1].max(axes).astype(data.mean.dtype)
    return Signature(data.train_x.shape[1:], data.train_x.dtype.name, data.mean, data.std, data.outputs, data.task,
                     data.target_mean, data.target_std, data.names, data.columns, low, high)  # fmt: skip


def from_json(record: Mapping[str, Any]) -> Signature:
    """The signature that `to_json` gave. Raises UserError for targets that this version does not know, and KeyError,
    TypeError or ValueError for anything else."""
    inputs, targets = record["inputs"], record["targets"]
    if targets["kind"] not in TASKS:
        raise UserError(f"this NodePert does not know targets of the kind {targets['kind']!r}; a later version wrote "
                        "them")  # fmt: skip
    shape = tuple(map(int, inputs["shape"]))
    mean, std = _array(inputs["mean"]), _array(inputs["std"])
    low, high = (_array(inputs[name]) if name in inputs else None for name in ("low", "high"))
    if {array.shape for array in (mean, std, low, high) if array is not None} != {shape[-1:]}:
        raise ValueError("mean, std, low and high must be one number for each channel")
    outputs, own = int(targets["outputs"]), {n: _array(targets[n]) if n in targets else None for n in ("mean", "std")}
    if [a.shape for a in own.values() if a is not None] not in ([], 2 * [(outputs,)]):
        raise ValueError("mean and std of the targets must be one number for each output")
    names = tuple(map(str, targets.get("names", ())))
    columns = schema.from_json(record["columns"]) if "columns" in record else None
    if columns and (columns.size,) != shape:
        raise ValueError("the columns are not those of the inputs")
    return Signature(shape, str(inputs["dtype"]), mean, std, outputs, str(targets["kind"]), own["mean"], own["std"],
                     names, columns, low, high)  # fmt: skip


def _plain(array: np.ndarray) -> dict[str, Any]:
    wide = array.dtype.itemsize > 8
    values = [str(value) if wide else float(value) for value in array]
    return {"dtype": WIDE if wide else array.dtype.name, "values": values}


def _array(record: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(record["dtype"])
    if dtype.kind != "f":
        raise ValueError(f"not a dtype of statistics: {dtype}")
    return np.array([dtype.type(value) for value in record["values"]], dtype)
