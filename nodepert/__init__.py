"""NodePert: learning by perturbation, on any JAX network.

    import nodepert as npt
    result = npt.train(npt.Run(dataset="mnist5k", rule="np(samples=4)"))

Read `nodepert/core.py` first. Names are imported when they are first used, so that `import nodepert` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_WHERE = {
    "core": ["Info", "Model", "Rule", "backprop", "plain", "pullback"],
    "rules.node": ["node_perturbation"],
    "spec": ["UserError"],
    "adapters.equinox": ["from_equinox", "with_params"],
    "adapters.flax": ["from_flax"],
    "data": ["DataError", "DataNotFound", "Dataset", "load_dataset", "make_dataset"],
    "config": ["Run"],
    "trackers": ["make_tracker"],
    "callbacks": ["Callback"],
    "grid": ["Grid", "load_grid", "make_grid"],
    "registry": ["make_loss"],
    "registering": ["register"],
    "building": ["make_model", "make_rule"],
    "runner": ["Result", "train"],
    "store": ["load_run"],
    "diagnostics": ["Check", "check"],
    "plots": ["learning_curves"],
    "results": ["load_results"],
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}
__all__ = sorted(_MODULE)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from nodepert import experiments as experiments
    from nodepert.adapters.equinox import from_equinox as from_equinox
    from nodepert.adapters.equinox import with_params as with_params
    from nodepert.adapters.flax import from_flax as from_flax
    from nodepert.building import make_model as make_model
    from nodepert.building import make_rule as make_rule
    from nodepert.callbacks import Callback as Callback
    from nodepert.config import Run as Run
    from nodepert.core import Info as Info
    from nodepert.core import Model as Model
    from nodepert.core import Rule as Rule
    from nodepert.core import backprop as backprop
    from nodepert.core import plain as plain
    from nodepert.core import pullback as pullback
    from nodepert.data import DataError as DataError
    from nodepert.data import DataNotFound as DataNotFound
    from nodepert.data import Dataset as Dataset
    from nodepert.data import load_dataset as load_dataset
    from nodepert.data import make_dataset as make_dataset
    from nodepert.diagnostics import Check as Check
    from nodepert.diagnostics import check as check
    from nodepert.grid import Grid as Grid
    from nodepert.grid import load_grid as load_grid
    from nodepert.grid import make_grid as make_grid
    from nodepert.plots import learning_curves as learning_curves
    from nodepert.registering import register as register
    from nodepert.registry import make_loss as make_loss
    from nodepert.results import load_results as load_results
    from nodepert.rules.node import node_perturbation as node_perturbation
    from nodepert.runner import Result as Result
    from nodepert.runner import train as train
    from nodepert.spec import UserError as UserError
    from nodepert.store import load_run as load_run
    from nodepert.trackers import make_tracker as make_tracker


def __getattr__(name: str):
    if name == "experiments":  # a package: npt.experiments.linesearch(...)
        return import_module("nodepert.experiments")
    if name not in _MODULE:
        raise AttributeError(f"module 'nodepert' has no attribute '{name}'; there are: {', '.join(__all__)}")
    return getattr(import_module(f"nodepert.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
