"""A run: everything that decides a result, checked once, when it is made."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, partialmethod
from typing import TYPE_CHECKING, Any, TypeAlias

from nodepert.errors import UserError
from nodepert.registry import (
    auto_loss,
    check_loss,
    declared_task,
    full,
    given_in,
    has_object,
    plain,
    shortened,
    spec_of,
    to_float,
)
from nodepert.registry.entry import Entry
from nodepert.registry.ranges import check_numbers
from nodepert.registry.spec import Spec

if TYPE_CHECKING:
    SpecOrObject: TypeAlias = Any
else:
    SpecOrObject = str  # on the command line, and once the run is made
SPECS = ("dataset", "network", "rule", "loss", "optimizer")  # the options that are specs, in the order of columns
LATER = {"validation": 0.0, "patience": 0}  # left out of a configuration at these values: ids of version 0.1 are valid


@dataclass(frozen=True)
class Task:
    """What is learned, by which network, for how long."""

    dataset: SpecOrObject = "mnist"
    """Data set, as a spec: mnist, mnist5k, 'cifar10(train=2000)' (the first 2,000 examples). See 'nodepert list'."""
    network: SpecOrObject = "fc"
    """Network, as a spec: fc, 'fc(width=500, depth=2)', linfc, conv, conv-large."""
    loss: SpecOrObject = "auto"
    """Per-example loss: mse, linear-mse, cross-entropy, ...; 'auto': for classes the network's own (linear-mse for
    linfc, else mse), for values linear-mse, for several labels per example sigmoid-cross-entropy."""
    batchsize: int = 100
    """Examples per update."""
    epochs: int = 10
    """Passes over the training data."""
    wd: float = 0.0
    """Decoupled weight decay per update: W <- (1 - wd) W."""
    seed: int = 0
    """Seed of weights, shuffling and noise."""
    validation: float = field(default=0.0, kw_only=True)
    """Training examples held out to choose the network: a share, as in 0.1, or a number. The result is then the network
    of the epoch with the best validation score (val_acc, val_r2, ...), not the last one."""
    patience: int = field(default=0, kw_only=True)
    """Stop after so many epochs without a better validation score; 0: never. Needs a validation split."""


@dataclass(frozen=True)
class Run(Task):
    """One training run: a task, a rule and an optimizer.

    A `Run` is valid from its construction: names, arguments and ranges are checked there. Every field has a default.
    `run.id` is its identity, a hash of the full configuration; `dataclasses.replace(run, seed=1)` makes a variant
    (with another network: `replace(run, network=..., loss="auto")`).

    Data set, network, rule, optimizer and loss are specs or objects: a `Dataset` or arrays `(x, y)`, a `Model` or a
    Flax or Equinox module, a factory `(model, loss) -> Rule`, an `optax.GradientTransformation`, which has its own
    learning rate (`run.lr` is None), a function `(outputs, targets) -> (B,)`. A `functools.partial` of a factory is
    that factory with arguments. An object without a registered name has one for as long as a run has the object; a run
    that is saved needs registered names (`npt.register`).

    Raises:
        UserError: For an unknown name or argument, a wrong type or object, or a number out of range.

    Examples:
        >>> import nodepert as npt
        >>> npt.Run(dataset="mnist5k", rule="np(samples=4)", lr=1e-3).id
        '5b0c995b590e'
        >>> import functools, optax
        >>> npt.Run(rule=functools.partial(npt.node_perturbation, samples=4), optimizer=optax.adam(1e-3)).rule
        'np(samples=4)'
    """

    rule: SpecOrObject = "np"
    """Learning rule, as a spec: sgd (backprop), np, 'np(samples=4, noise=rademacher)', 'np; out=exact', wp, fa, ...
    See 'nodepert list rules'."""
    optimizer: SpecOrObject = "adam(schedule=cosine)"
    """Optimizer, as a spec: sgd, momentum, adam, adamw, rmsprop, each with schedule=constant or cosine;
    'clip(adam, norm=1.0)' clips gradients by their global norm, 'normalise(adam)' normalises weights."""
    lr: float = 3e-4
    """Learning rate of the optimizer (its first value, under a schedule)."""

    def __post_init__(self):
        objects = {kind: spec_of(kind, value) for kind in SPECS if not isinstance(value := getattr(self, kind), str)}
        for kind, (spec, _) in objects.items():
            self._set(kind, str(spec))
        rate = self.lr
        for f in fields(self):
            if f.name not in SPECS:
                self._set(f.name, _converted(f.name, str(f.type), getattr(self, f.name)))
        specs = {kind: full(kind, getattr(self, kind)) for kind in SPECS if (kind, self.loss) != ("loss", "auto")}
        if self.loss == "auto":
            specs["loss"] = full("loss", auto_loss(specs["network"], specs["dataset"]))
        check_loss(specs["loss"], declared_task(specs["dataset"].name), specs["dataset"])
        for kind, spec in specs.items():
            self._set(kind, str(shortened(kind, spec)))
        self._set("_specs", specs)
        self._set("_unnamed", given_in(specs))
        _check_ranges(self)
        if has_object("optimizer", specs["optimizer"]):
            _check_own_rate(self, rate)
            self._set("lr", None)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def specs(self) -> dict[str, Spec]:
        """{kind: spec} of data set, network, loss, rule and optimizer, parsed, every default written out."""
        return dict(self.__dict__["_specs"])

    @property
    def unnamed(self) -> dict[tuple[str, str], Entry]:
        """{(kind, name): registry line} of the objects that the run was given and that have no registered name."""
        return self.__dict__["_unnamed"]

    @property
    def config(self) -> dict[str, Any]:
        """The full configuration as plain values, every default written out but those of `LATER`."""
        values = asdict(self) | {kind: str(spec) for kind, spec in self.specs.items()}
        return {name: value for name, value in values.items() if name not in LATER or value != LATER[name]}

    @cached_property
    def id(self) -> str:
        """Twelve hex digits of a hash of the full configuration."""
        return id_of(self.config)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled. Raises UserError for objects that have no name: another process could not find them."""
        refuse_unnamed([self], "pickled")
        return self.__dict__

    def __deepcopy__(self, memo: Any) -> Run:
        return self

    __copy__ = partialmethod(__deepcopy__, None)


def id_of(config: dict[str, Any]) -> str:
    """The identity of the run with this configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def refuse_unnamed(runs: Iterable[Run], what: str) -> None:
    """Raises UserError for runs that have objects without a registered name, and are to be saved, say."""
    for unnamed in (run.unnamed for run in runs if run.unnamed):
        objects = " and ".join(f"{kind} {name}" for kind, name in unnamed)
        kind = next(iter(unnamed))[0]
        raise UserError(f"a run that is {what} needs a registered name for its {objects}, as in npt.register('{kind}', "
                        f"'my-{kind}', ...); then make the run again")  # fmt: skip


def from_config(values: Any) -> Run:
    """The run that plain values describe, as `Run.config` gives them.

    Raises:
        UserError: For unknown or missing names, and as `Run` does.
    """
    known = {f.name for f in fields(Run)}
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        raise UserError("a configuration is a table of option names and values")
    if unknown := sorted(set(values) - known):
        raise UserError(f"unknown option{'s' * (len(unknown) > 1)} {', '.join(unknown)}; "
                        f"there are: {', '.join(sorted(known))}")  # fmt: skip
    if missing := sorted(known - set(values) - set(LATER)):
        raise UserError(f"missing option{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return Run(**values)


_NOUNS = {"int": "a whole number", "float": "a number"}


def _check_own_rate(run: Run, rate: Any) -> None:
    """Raises UserError for a run whose optimizer is an object, if it was given what belongs to the optimizer."""
    if rate is not None and rate is not Run.lr:  # the default itself: an equal number was given
        raise UserError(f"the optimizer {run.optimizer} has its own learning rate: leave out lr (lr=None in "
                        f"dataclasses.replace); got lr={rate!r}")  # fmt: skip
    if run.wd:
        raise UserError(f"the optimizer {run.optimizer} has its own weight decay, as in optax.adamw: leave out wd; got "
                        f"wd={run.wd}")  # fmt: skip


def _converted(name: str, kind: str, value: Any) -> Any:
    """A field's value in its declared type; numbers of numpy and JAX are numbers."""
    value = plain(value)
    if name == "lr" and value is None:  # left out
        value = Run.lr
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if kind == "float" and real:
        return to_float(name, value)
    if kind == "int" and real and isinstance(value, numbers.Integral):
        return int(value)
    if type(value).__name__ != kind:
        raise UserError(f"{name} must be {_NOUNS[kind]}; got {value!r}")
    return value


def _check_ranges(run: Run) -> None:
    if run.batchsize < 1:
        raise UserError(f"batchsize must be at least 1; got {run.batchsize}")
    if run.epochs < 0:
        raise UserError(f"epochs must not be negative; got {run.epochs}")
    if not (0 <= run.validation < 1 or (run.validation < math.inf and run.validation == int(run.validation) > 0)):
        raise UserError("validation is a share of the training examples below 1, or a whole number of them; "
                        f"got {run.validation:g}")  # fmt: skip
    if run.patience < 0:
        raise UserError(f"patience must not be negative; got {run.patience}")
    if run.patience and not run.validation:
        raise UserError(f"patience={run.patience} needs a validation split, as in validation=0.1")
    check_numbers(run.lr, run.wd, run.seed)
