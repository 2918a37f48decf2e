"""The command `nodepert summary`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from nodepert.cli.options import Flat
from nodepert.cli.output import Output
from nodepert.studies.run import Run


def summarise(
    network: str = "fc",
    dataset: str = "mnist",
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    output: Flat[Output] = Output(),
) -> None:
    """Show a network node by node: shapes, parameters, perturbed units, multiplications of a forward pass.

    Example: nodepert summary --network conv --dataset cifar10

    Args:
        network: Network, as a spec.
        dataset: Data set, as a spec, whose inputs and outputs the network has.
        data_dir: Folder of the data files, which are read if the shape of the data is not known without them.
        output: What is printed.
    """
    from nodepert.studies.summary import summary
    from nodepert.training import devices

    run = Run(network=network, dataset=dataset)
    devices.start()
    found = summary(run, data_dir=data_dir)
    output.show(lambda: print(found), lambda: found._asdict() | {"nodes": [node._asdict() for node in found.nodes]})
