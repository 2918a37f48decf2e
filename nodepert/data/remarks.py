"""What data of the user's own imply: the number of classes, and remarks on what looks like a mistake."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

FEW = 100  # different values that may be class labels
MANY = 10_000  # classes that labels may imply, whatever their number
FAR, SHARE = 2, 0.01  # inputs outside the training range by twice its width are remarked where they are so many
SMALL = 0.1  # most inputs of a channel below this share of its least training magnitude are too small
WIDE = 8  # the least training range whose inputs are not fractions up to 1
log = logging.getLogger("nodepert")


def classes_implied(train_y: np.ndarray, test_y: np.ndarray) -> int:
    """The largest label + 1. Raises ValueError if that is far more than there are labels."""
    labels = [y for y in (train_y, test_y) if y.size and y.dtype.kind in "iu"]
    classes = 1 + max((int(y.max()) for y in labels), default=0)
    examples = sum(y.size for y in labels)
    if classes > max(MANY, examples):
        raise ValueError(
            f"the largest of {examples:,} labels is {classes - 1:,}, which would be {classes:,} classes; number the "
            "classes 0, 1, 2, ..., as np.unique(y, return_inverse=True)[1] does, or give their number by classes="
        )
    return classes


def remark_targets(name: str, train_y: np.ndarray, test_y: np.ndarray, task: str, implied: int) -> None:
    """A warning if some of the classes that labels imply have no example (each is an output of the network that enters
    the loss), or if other targets look like classes."""
    if task in ("classes", "steps") and implied:
        labels = np.concatenate([train_y, test_y]).ravel()
        unused = np.flatnonzero(np.bincount(labels[labels >= 0], minlength=implied) == 0)
        if len(unused):
            shown = ", ".join(map(str, unused[:5])) + ", ..." * (len(unused) > 5)
            log.warning("%s: %d of %d classes have no example (%s); number the classes from 0 without gaps, or give "
                        "their number by classes=", name, len(unused), implied, shown)  # fmt: skip
    if task == "multilabel" and train_y.shape[1] > 1 and (train_y.sum(1) == 1).all():
        log.warning("%s: every row of the targets has one 1, and is taken as several labels; class indices are "
                    "y.argmax(1)", name)  # fmt: skip
    if task == "values" and train_y.shape[1] == 1:
        different = np.unique(train_y)
        if 1 < len(different) <= FEW and np.array_equal(different, np.arange(len(different))):
            log.warning("%s: the targets, floats from 0 to %d without fractions, are taken as values; class labels are "
                        "integers: y.astype(int)", name, len(different) - 1)  # fmt: skip


def remark_inputs(name: str, x: np.ndarray) -> None:
    """A warning if all inputs, (N, ...), are equal, or look like images whose first axis is the channels."""
    shape = x.shape[1:]
    if len(x) > 1 and (x[1] == x[0]).all() and (x == x[0]).all():
        log.warning("%s: all training inputs are equal; if they had a large offset, subtract it before they are "
                    "converted to float32", name)  # fmt: skip
    if len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4) and min(shape[1:]) > 4:
        log.warning("%s: inputs of shape %s look like images with the channels first; channels are the last axis, as "
                    "np.moveaxis(x, 1, -1) makes them", name, shape)  # fmt: skip


def remark_range(x: np.ndarray, low: np.ndarray, high: np.ndarray, names: Sequence[str]) -> None:
    """A warning if inputs, (N, ..., C), are in other units than those of the training, from low to high (C,): many are
    far outside their range, most of a channel are much nearer to zero than all of the training, or all are fractions up
    to 1 of a range that is wider. `names` of the channels, or none."""
    if not x.size:
        return
    low, high, axes = low.astype(np.float64), high.astype(np.float64), tuple(range(x.ndim - 1))
    margin = np.where(high > low, FAR * (high - low), np.inf)
    far = ((x > high + margin) | (x < low - margin)).mean(axes)
    nearest = np.where(np.sign(low) == np.sign(high), np.minimum(np.abs(low), np.abs(high)), 0)
    small, off = np.zeros(len(low), bool), nearest > 0
    small[off] = (np.abs(x[..., off]) < SMALL * nearest[off]).mean(axes) > 0.5
    channel = int((far + small).argmax())
    scaled = (high >= WIDE).all() and x.min() >= 0 and x.max() <= 1 and (x % 1).any()
    if far.mean() >= SHARE or small.any() or scaled:
        what = f" of column '{names[channel]}'" if names else f" of channel {channel}" * (len(low) > 1)
        own = x[..., channel]
        ranges = own.min(), own.max(), low[channel], high[channel]
        log.warning("inputs%s are from %.4g to %.4g, and those of the training were from %.4g to %.4g: give them in "
                    "the units of the training data", what, *ranges)  # fmt: skip


def remark_constant(y: np.ndarray, split: str) -> None:
    """A warning that values, (N, ...), have no R2 if they are all equal."""
    if (y == y[:1]).all():
        log.warning("R2 of the %s split is nan: its targets are all equal, and R2 is relative to their variance", split)
