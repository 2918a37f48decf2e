"""A step that is traced, not computed: what is wrong with a run is found before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nodepert.contract.mixing import check_network
from nodepert.core import Loss, Model, node_shapes, per_example
from nodepert.data.targets import two
from nodepert.errors import UserError, first_line
from nodepert.registry import make
from nodepert.registry.build import own
from nodepert.rules.noise import key_of
from nodepert.rules.update import started, updated
from nodepert.training.hyper import Hyper


def rehearse(
    model: Model,
    loss: Loss,
    hypers: Sequence[Hyper],
    shape: tuple[int, ...],
    of: str = "",
    classes: int = 1,
    task: str = "classes",
    steps: int = 0,
) -> int:
    """Trace one step of replicas of one structure, on inputs of this shape, without computing it.

    Finds what is wrong with a network, a rule, a loss or their numbers before anything is written.

    Args:
        model, loss, hypers: As `fit_all` takes them.
        shape: Of one input.
        of: What the step belongs to, for the message; by default the shape of its inputs.
        classes: Number of classes of the data, where labels are in 0..classes-1; of other tasks, numbers per target.
        task: What the targets are.
        steps: How many time steps they have; 0 for one target per example.

    Returns:
        The bytes of the parameters of one replica.

    Raises:
        UserError: For whatever the network, the rule, the loss or the optimizer refuses, or fails with.
    """
    for hyper in hypers:
        optimizer = make("optimizer", hyper.optimizer, hyper.lr, 1)
        make("rule", hyper.rule, model, loss)

    targets = jnp.asarray(two(task, classes, steps))  # concrete, so that a label without an output is found

    def step(hyper, key, x, y):  # numbers are traced, as in training
        rule = make("rule", hyper.rule, model, loss)
        key, weights = jax.random.split(key)
        network = rule.model(x) if rule.model else model
        params = network.init(weights)
        node_shapes(network, params, x)  # every node has its own name, and the examples on its first axis
        outputs = network.apply(params, x)
        try:
            per_example(loss, outputs, targets)
        except ValueError as error:
            raise ValueError(_of_time(outputs.shape, steps) or error) from error
        grads = rule.grads(key, rule.init(key, params, x), params, (x, y))[0]
        if own("optimizer", hypers[0].optimizer):
            updated(optimizer, grads, started(optimizer, params), params)
        return grads

    batch = jax.ShapeDtypeStruct((2, *shape), "float32"), jax.ShapeDtypeStruct(targets.shape, targets.dtype)
    try:
        check_network(model, batch[0])
        params = jax.eval_shape(step, hypers[0], key_of(0), *batch)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    except UserError:
        raise
    except ValueError as error:  # of the network, the rule or the loss, against its contract
        raise UserError(f"{error}{of}") from error
    except Exception as error:  # of a network or a rule of the user's own
        what = f"the network, the rule, the loss or the optimizer fails{of or f' on inputs of shape {batch[0].shape}'}"
        raise UserError(f"{what}: {type(error).__name__}: {first_line(error)}") from error


def _of_time(outputs: tuple[int, ...], steps: int) -> str:
    """What is wrong with outputs of this shape for targets with so many time steps; "" if nothing is."""
    have = outputs[1] if len(outputs) == 3 else 0
    if steps == have or len(outputs) > 3:
        return ""
    if steps and have:
        return f"the targets have {steps} time steps, and the outputs of this network {have}"
    if steps:
        return (f"there is a target for each of {steps} time steps, and this network has one output per example: give "
                "one with an output for every step, as rnn(readout=every)")  # fmt: skip
    return (f"there is one target per example, and this network has an output for each of {have} time steps: give one "
            "with an output after the last step, as rnn(readout=last)")  # fmt: skip
