"""The signature of a data set: what a network that was trained on it takes and gives, without the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nodepert.data.dataset import Dataset, is_wide, standardise
from nodepert.errors import UserError

CLASSES = "classes"  # the kind of targets
WIDE = "longdouble"  # its name and size depend on the platform
log = logging.getLogger("nodepert")


class Signature(NamedTuple):
    """Inputs, as they are before standardising, and targets."""

    shape: tuple[int, ...]  # of one input
    dtype: str  # of the training inputs
    mean: np.ndarray  # (C,), as in the `Dataset`
    std: np.ndarray
    outputs: int  # of the network
    targets: str = CLASSES  # what they are

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """Inputs as the network receives them, float32."""
        return np.asarray(standardise(self.inputs(x), self.mean, self.std), np.float32)

    def inputs(self, x: Any) -> np.ndarray:
        """Examples in the units of the training inputs, checked: uint8, float32, or wider if the mean is. Raises
        UserError for another shape or dtype, and for values that are not finite."""
        try:
            x = np.asarray(x)
        except ValueError:  # rows of several lengths
            raise UserError(f"inputs must be an array of shape (N, {self._shape})") from None
        if x.dtype.kind not in "fiu":
            raise UserError(f"inputs must be real numbers; got {x.dtype}")
        if x.shape[1:] != self.shape or not x.ndim:
            hint = "; for one example give x[None]" if x.shape == self.shape else ""
            raise UserError(f"inputs must be of shape (N, {self._shape}); got {x.shape}{hint}")
        if x.dtype != np.uint8 and not is_wide(self.mean):
            with np.errstate(over="ignore"):
                x = x.astype(np.float32)
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise UserError("inputs contain nan or inf, or are too large for float32")
        if self.dtype == "uint8" and x.dtype.kind == "f" and x.size and 0 < x.max() <= 1 and (x % 1).any():
            log.warning("these inputs are fractions up to 1, and the network was trained on whole numbers (uint8): "
                        "give them in the units of the training data")  # fmt: skip
        return x

    def fits(self, data: Dataset) -> None:
        """Raise UserError for data of another shape, or of more classes than there are outputs."""
        if data.train_x.shape[1:] != self.shape:
            raise UserError(f"inputs of {data.name} are {data.train_x.shape[1:]}; this network takes {self.shape}")
        if data.classes > self.outputs:
            raise UserError(f"{data.name} has {data.classes} classes; this network has {self.outputs} outputs")

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """What the outputs (N, ...) predict: the indices of classes. Raises UserError for outputs that are nan."""
        if np.isnan(outputs).any():
            raise UserError("outputs of this network are nan: its training has diverged, so it predicts nothing")
        return outputs.argmax(-1)

    def to_json(self) -> dict[str, Any]:
        """Plain values, exact."""
        inputs = {"shape": [*self.shape], "dtype": self.dtype, "mean": _plain(self.mean), "std": _plain(self.std)}
        return {"inputs": inputs, "targets": {"kind": self.targets, "outputs": self.outputs}}

    @property
    def _shape(self) -> str:
        return ", ".join(map(str, self.shape))


def signature_of(data: Dataset) -> Signature:
    """The signature of a data set."""
    return Signature(data.train_x.shape[1:], data.train_x.dtype.name, data.mean, data.std, data.classes)


def from_json(record: Mapping[str, Any]) -> Signature:
    """The signature that `to_json` gave. Raises UserError for targets that this version does not know, and KeyError,
    TypeError or ValueError for anything else."""
    inputs, targets = record["inputs"], record["targets"]
    if targets["kind"] != CLASSES:
        raise UserError(f"this NodePert does not know targets of the kind {targets['kind']!r}; a later version wrote "
                        "them")  # fmt: skip
    shape = tuple(map(int, inputs["shape"]))
    mean, std = _array(inputs["mean"]), _array(inputs["std"])
    if mean.shape != shape[-1:] or std.shape != shape[-1:]:
        raise ValueError("mean and std must be one number for each channel")
    return Signature(shape, str(inputs["dtype"]), mean, std, int(targets["outputs"]))


def _plain(array: np.ndarray) -> dict[str, Any]:
    wide = array.dtype.itemsize > 8
    values = [str(value) if wide else float(value) for value in array]
    return {"dtype": WIDE if wide else array.dtype.name, "values": values}


def _array(record: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(record["dtype"])
    if dtype.kind != "f":
        raise ValueError(f"not a dtype of statistics: {dtype}")
    return np.array([dtype.type(value) for value in record["values"]], dtype)
