"""Tasks: what the targets of a data set are, and the losses that fit them."""

from __future__ import annotations

from nodepert.errors import UserError
from nodepert.registry.entry import TASKS
from nodepert.registry.spec import Spec
from nodepert.registry.table import entry, resolve, table


def declared_task(dataset: str) -> str:
    """The task of a registered data set; "" where only the data tell."""
    line = entry("dataset", dataset)
    return getattr(resolve("dataset", dataset), "task", line.task) if line.package else line.task


def auto_loss(network: Spec, dataset: Spec) -> str:
    """The loss in place of "auto": for classes that of the network (of one that wraps another, of the inner one), for
    other tasks that of the task."""
    while network.args:
        network = network.args[0]
    task = declared_task(dataset.name)
    return entry("network", network.name).loss if task == "classes" else TASKS[task].loss


def fitting(task: str) -> list[str]:
    """The losses that are declared for a task."""
    return [name for name, line in table("loss").items() if task in line.tasks]


def check_loss(loss: Spec, task: str, dataset: Spec) -> None:
    """Raises UserError for a loss that is declared for other tasks than that of this data set."""
    fits = entry("loss", loss.name).tasks
    if task and fits and task not in fits:
        declare = f", or register the data set with task='{task}'" * (declared_task(dataset.name) not in ("", task))
        raise UserError(
            f"loss {loss.name} does not fit the targets of {dataset.name}, which are {TASKS[task].targets}; "
            f"give one of: {', '.join(fitting(task))}{declare}"
        )
