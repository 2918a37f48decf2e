"""NodePert: learning by perturbation, on any JAX network.

    import nodepert as npt
    result = npt.train(npt.Run(dataset="mnist5k", rule="np(samples=4)"))

Read `nodepert/core.py` first. Names are imported when they are first used, so that `import nodepert` is fast.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_WHERE = {
    "errors": ["UserError"],
    "core": ["Info", "Model", "Rule", "backprop", "plain", "pullback"],
    "contract.loops": ["checkpoint", "scan"],
    "registry": ["make_loss", "make_model", "make_rule", "register"],
    "models.adapters.equinox": ["from_equinox", "with_params"],
    "models.adapters.flax": ["from_flax"],
    "data": ["DataError", "DataNotFound", "Dataset", "load_dataset", "make_dataset"],
    "rules.node": ["node_perturbation"],
    "diagnostics": ["Check", "Recommendation", "check", "recommend"],
    "studies.run": ["Run"],
    "studies.grid": ["Grid", "load_grid", "make_grid"],
    "studies.callbacks": ["Callback"],
    "studies.load": ["load"],
    "studies.result": ["Result"],
    "studies.train": ["train"],
    "studies.tune": ["Tuned", "tune"],
    "studies.store.run_folder": ["load_run"],
    "studies.results": ["load_results"],
    "studies.summary": ["summary"],
    "studies.trackers": ["make_tracker"],
    "studies.curves": ["learning_curves"],
    "estimators": ["NodePertClassifier", "NodePertRegressor"],
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}
__all__ = sorted(_MODULE)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from nodepert import experiments as experiments
    from nodepert.contract.loops import checkpoint as checkpoint
    from nodepert.contract.loops import scan as scan
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
    from nodepert.diagnostics import Recommendation as Recommendation
    from nodepert.diagnostics import check as check
    from nodepert.diagnostics import recommend as recommend
    from nodepert.errors import UserError as UserError
    from nodepert.estimators import NodePertClassifier as NodePertClassifier
    from nodepert.estimators import NodePertRegressor as NodePertRegressor
    from nodepert.models.adapters.equinox import from_equinox as from_equinox
    from nodepert.models.adapters.equinox import with_params as with_params
    from nodepert.models.adapters.flax import from_flax as from_flax
    from nodepert.registry import make_loss as make_loss
    from nodepert.registry import make_model as make_model
    from nodepert.registry import make_rule as make_rule
    from nodepert.registry import register as register
    from nodepert.rules.node import node_perturbation as node_perturbation
    from nodepert.studies.callbacks import Callback as Callback
    from nodepert.studies.curves import learning_curves as learning_curves
    from nodepert.studies.grid import Grid as Grid
    from nodepert.studies.grid import load_grid as load_grid
    from nodepert.studies.grid import make_grid as make_grid
    from nodepert.studies.load import load as load
    from nodepert.studies.result import Result as Result
    from nodepert.studies.results import load_results as load_results
    from nodepert.studies.run import Run as Run
    from nodepert.studies.store.run_folder import load_run as load_run
    from nodepert.studies.summary import summary as summary
    from nodepert.studies.trackers import make_tracker as make_tracker
    from nodepert.studies.train import train as train
    from nodepert.studies.tune import Tuned as Tuned
    from nodepert.studies.tune import tune as tune


forked = False  # whether this process was forked from one in which JAX had started


def _mark_fork() -> None:
    global forked
    bridge = sys.modules.get("jax._src.xla_bridge")
    forked = forked or bool(getattr(bridge, "_backends", None))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_fork)


def __getattr__(name: str):
    if name == "experiments":  # a package: npt.experiments.linesearch(...)
        return import_module("nodepert.experiments")
    if name not in _MODULE:
        raise AttributeError(f"module 'nodepert' has no attribute '{name}'; there are: {', '.join(__all__)}")
    return getattr(import_module(f"nodepert.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
