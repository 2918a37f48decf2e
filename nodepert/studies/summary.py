"""`summary`: the nodes of a network, their shapes, parameters, perturbed units and cost."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nodepert.core import node_params, preactivations
from nodepert.data import load_dataset
from nodepert.errors import UserError
from nodepert.models.adapters.anything import model_of
from nodepert.registry import make_model
from nodepert.registry.generator import pinned
from nodepert.rules.noise import key_of
from nodepert.studies.run import Run
from nodepert.studies.setup import known_shape, shape_of
from nodepert.training.multiplications import multiplications


class NodeSummary(NamedTuple):
    """One node: the shape of its pre-activation for one example, its parameters, its perturbed units, and the
    multiplications of a forward pass of one example."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    units: int
    multiplications: int


class Summary(NamedTuple):
    """A network, node by node. `print` shows it as a table."""

    input_shape: tuple[int, ...]
    nodes: list[NodeSummary]
    parameters: int
    units: int
    multiplications: int

    def __str__(self) -> str:
        last = NodeSummary("all", (), self.parameters, self.units, self.multiplications)
        heading = ("node", "pre-activation", "parameters", "perturbed units", "multiplications")
        cells = [heading, ("input", _shape(self.input_shape), "", "", "")]
        cells += [(n.name, _shape(n.shape), *(f"{v:,}" for v in n[2:])) for n in [*self.nodes, last]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join(f"{text:{'<' if i < 2 else '>'}{width}}" for i, (text, width)
                          in enumerate(zip(row, widths, strict=True))).rstrip() for row in cells)  # fmt: skip


@pinned()
def summary(
    network: Any, input_shape: Sequence[int] | None = None, outputs: int = 1, *, data_dir: str | Path | None = None
) -> Summary:
    """Summarise a network: its nodes with shapes, parameters, perturbed units, and the cost of a forward pass.

    Args:
        network: A `Run`, a `Model`, a Flax or Equinox module, or a factory (input_shape, classes) -> Model.
        input_shape: The shape of one input. Default: that of the run's data set.
        outputs: The number of outputs, which a factory takes. Default: that of the run's data set.
        data_dir: Folder of the data files, which are read if the registry does not declare their shape.

    Returns:
        A `Summary`, all of it for one example.

    Raises:
        UserError: If there is no network, or no input shape.

    Examples:
        >>> import nodepert as npt
        >>> print(npt.summary(npt.Run(dataset="digits", network="fc(width=10)")))
        node   pre-activation  parameters  perturbed units  multiplications
        input  8x8x1
        fc0    10                     650               10              640
        fc1    10                     110               10              100
        out    10                     110               10              100
        all                           870               30              840
    """
    if isinstance(network, Run):
        run = network
        shape, classes, *_ = known_shape(run) or shape_of(load_dataset(run.specs["dataset"], data_dir))
        model = make_model(run.specs["network"], shape, classes)
    elif input_shape is None:
        raise UserError("summary needs the shape of one input, as in npt.summary(model, (28, 28, 1)); a Run has one")
    else:
        shape = tuple(input_shape)
        model = model_of(network, shape, outputs)
    costs: dict[str, int] = {}

    def node(name: str, op: Any, params: Any, h: Any) -> Any:
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, h))
        costs[name] = multiplications(jax.make_jaxpr(op)(*shapes))
        return op(params, h)

    x = jax.ShapeDtypeStruct((1, *shape), "float32")
    params = jax.eval_shape(model.init, key_of(0))
    found = jax.eval_shape(lambda p, x: preactivations(model, p, x, node), params, x)
    own = jax.eval_shape(lambda p, x: node_params(model, p, x), params, x)
    nodes = [NodeSummary(name, a.shape[1:], _size(own[name]), prod(a.shape[1:]), costs[name])
             for name, a in ((name, found[name]) for name in costs)]  # fmt: skip
    whole = multiplications(jax.make_jaxpr(lambda p, x: model.apply(p, x))(params, x))
    return Summary(shape, nodes, _size(params), sum(n.units for n in nodes), whole)


def _size(tree: Any) -> int:
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
