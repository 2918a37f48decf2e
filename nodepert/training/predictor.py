"""A trained network in use: outputs, predictions and metrics of any examples, without the training data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Loss, Model, Params
from nodepert.data import targets
from nodepert.data.checks import check_split
from nodepert.data.dataset import Dataset, is_wide, sound, standardise
from nodepert.data.matching import matched, matched_targets
from nodepert.data.remarks import remark_constant
from nodepert.data.schema import check_aligned
from nodepert.data.signature import Signature, from_json
from nodepert.errors import UserError
from nodepert.models.adapters.anything import model_of
from nodepert.registry import is_given, make, make_loss, make_model
from nodepert.registry.generator import pinned
from nodepert.registry.spec import Spec, parse
from nodepert.rules.noise import key_of
from nodepert.training import devices
from nodepert.training.hyper import Hyper
from nodepert.training.metrics import METRICS, measured
from nodepert.training.program import EVALUATION_BATCH, Program, task_data


@dataclass(frozen=True, eq=False)
class Predictor:
    """What a trained network needs to predict, beside its parameters."""

    signature: Signature
    network: str  # as a spec
    loss: str
    rule: str = ""  # only one that adapts the network, as decorrelate does
    given: Any = None  # a network in place of the one that the spec names

    @classmethod
    def of(cls, specs: Mapping[str, Spec], signature: Signature, model: Model, loss: Loss) -> Predictor:
        """The predictor of a run with these specs, whose network and loss are built."""
        adapts = make("rule", specs["rule"], model, loss).model
        rule = str(specs["rule"]) if adapts else ""
        return cls(signature, str(specs["network"]), str(specs["loss"]), rule, model)

    def __getstate__(self) -> dict[str, Any]:
        """Without what cannot be pickled: the network is built again from its spec."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"given": None}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], given: Any = None) -> Predictor:
        """The predictor that `to_json` gave; `given`: a network in place of its spec. Raises UserError."""
        try:
            network, loss, rule = (str(record[name]) for name in ("network", "loss", "rule"))
            return cls(from_json(record), network, loss, rule, given)
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"the record of its network is corrupt ({type(error).__name__}: {error})") from None

    def to_json(self) -> dict[str, Any]:
        """Plain values; a network or a loss that was given as an object, without a name that others know, is ""."""
        texts = {"network": self.network, "loss": self.loss}
        named = {kind: "" if is_given(kind, text) else text for kind, text in texts.items()}
        return named | {"rule": self.rule} | self.signature.to_json()

    def text(self, kind: str) -> str:
        """The network or the loss as a spec. Raises UserError for one that was given as an object."""
        if text := getattr(self, kind):
            return text
        raise UserError(f"its {kind} was given as an object, without a name")

    @cached_property
    def model(self) -> Model:
        """The network that was trained. Raises UserError for a name that is not registered."""
        if not self.rule:
            return self._base
        with _as_in_training():
            adapted = make("rule", self.rule, self._base, make_loss(self.loss)).model
        return adapted(jnp.zeros((1, *self.signature.shape))) if adapted else self._base

    @cached_property
    def _base(self) -> Model:
        shape, outputs = self.signature.shape, self.signature.outputs
        if self.given is not None:
            return model_of(self.given, shape, outputs)
        with _as_in_training():
            return make_model(self.text("network"), shape, outputs)

    @cached_property
    def like(self) -> Params:
        """The shapes of the parameters."""
        with pinned():
            return jax.eval_shape(self.model.init, key_of(0))

    @cached_property
    def names(self) -> list[str]:
        """The names of the parameters, "fc0/w", in the order of their leaves; each once."""
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(self.like)]
        short = [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]
        return short if len({*short}) == len(short) else [jax.tree_util.keystr(path) for path in paths]

    @property
    def structure(self) -> list[tuple[str, tuple[int, ...], str]]:
        """(name, shape, dtype) of each parameter."""
        leaves = jax.tree.leaves(self.like)
        return [(name, leaf.shape, str(leaf.dtype)) for name, leaf in zip(self.names, leaves, strict=True)]

    def restored(self, arrays: Sequence[np.ndarray]) -> Params:
        """The parameters, of their leaves as saved. Raises UserError where they are those of another network."""
        leaves, structure = jax.tree.flatten(self.like)
        if [leaf.shape for leaf in leaves] != [array.shape for array in arrays]:
            raise self.mismatch()
        if other := [(a.dtype, b.dtype) for a, b in zip(arrays, leaves, strict=True) if a.dtype != b.dtype]:
            raise UserError(f"its parameters are {other[0][0]}, and this network's {other[0][1]}: set JAX's "
                            "configuration (jax_enable_x64) as it was in training")  # fmt: skip
        return jax.tree.unflatten(structure, map(jnp.asarray, arrays))

    def mismatch(self) -> UserError:
        """The error for parameters of another network."""
        which = f"network {self.network} as it is here" if self.given is None else "network that is given"
        return UserError(f"its parameters are not those of the {which}")

    def outputs(self, params: Params, x: Any) -> np.ndarray:
        """Outputs of the network, (N, ...), for inputs in the units of the training data. Raises UserError."""
        x = self.signature.inputs(x)
        self.signature.remark(x)
        starts = range(0, max(len(x), 1), EVALUATION_BATCH)
        return np.concatenate([self._batch(params, x[start : start + EVALUATION_BATCH]) for start in starts])

    def _batch(self, params: Params, x: np.ndarray) -> np.ndarray:
        """Outputs of one batch, filled up to a power of two: few sizes are compiled."""
        size = min(EVALUATION_BATCH, 1 << max(len(x) - 1, 0).bit_length())
        filled = np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])
        mean, std = self.signature.mean, self.signature.std
        if is_wide(mean):  # only the host has the precision
            filled, mean, std = standardise(filled, mean, std), np.float32(0), np.float32(1)
        return np.asarray(self._forward(params, filled, mean, std))[: len(x)]

    @cached_property
    def _forward(self) -> Any:
        devices.start()
        return jax.jit(lambda params, x, mean, std: self.model.apply(params, standardise(x, mean, std)),
                       compiler_options=devices.compiler_options())  # fmt: skip

    def predict(self, params: Params, x: Any) -> np.ndarray:
        """What the network predicts, (N,). Raises UserError."""
        return self.signature.predictions(self.outputs(params, x))

    @cached_property
    def _metrics(self) -> Any:
        devices.start()
        with _as_in_training():
            task = Program(
                self._base,
                make_loss(self.text("loss")),
                1,
                0,
                metrics=measured(task=self.signature.task, validation=True),
            )
        hyper = Hyper(parse(self.rule or "sgd"), Spec("sgd"), 0.0)
        return jax.jit(lambda params, data: task.evaluate(params, hyper, data),
                       compiler_options=devices.compiler_options())  # fmt: skip

    def evaluate(self, params: Params, data: Dataset) -> dict[str, float]:
        """The metrics that examples have, on all splits, with the statistics of the training data: the values of a
        run's row. Raises UserError for data that the network does not fit."""
        own = self.signature
        data = matched(own, sound(data))
        own.fits(data)
        own.remark(data.train_x)
        found = self._evaluated(params, data)
        for split, (_, y) in data.splits.items() if own.task in targets.SCALED else ():
            remark_constant(y, split)
        return found

    def evaluate_pair(self, params: Params, x: Any, y: Any) -> dict[str, float]:
        """The metrics of examples and their targets, as of a test split. Raises UserError."""
        own = self.signature
        check_aligned("these examples", x, y)
        x, y = own.inputs(x), matched_targets(own, y)
        if not len(x):
            raise UserError("there are no examples to evaluate")
        check_split("test", x, y, own.outputs, "these examples", own.task)
        own.remark(x)
        y = targets.stored(y, own.task)
        one = int(targets.graded(y, own.task).any(1).argmax()) if own.task in targets.IN_TIME else 0
        one = slice(one, one + 1)
        found = self._evaluated(params, Dataset("these examples", x[one], y[one], x, y, own.outputs, own.mean, own.std,
                                                "", own.task, own.target_mean, own.target_std))  # fmt: skip
        if own.task in targets.SCALED:
            remark_constant(y, "test")
        return {name: value for name, value in found.items() if METRICS[name].split == "test"}

    def _evaluated(self, params: Params, data: Dataset) -> dict[str, float]:
        own = self.signature
        data = data._replace(
            mean=own.mean, std=own.std, target_mean=own.target_mean, target_std=own.target_std, classes=own.outputs
        )
        found = self._metrics(params, task_data(data))
        return {name: metric.value(float(found[name])) for name, metric in METRICS.items() if name in found}


class Trained(NamedTuple):
    """A trained network."""

    predictor: Predictor
    params: Params


@contextmanager
def _as_in_training() -> Iterator[None]:
    """Add to a UserError what to do about a name that this process does not know."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}. A name of your own must be registered as in training (npt.register); a network may "
                        "be given instead: npt.load(..., network=module)") from None  # fmt: skip
