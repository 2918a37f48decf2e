"""The command `nodepert summary`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from nodepert.studies.run import Run


def summary(
    network: str = "fc",
    dataset: str = "mnist",
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
) -> None:
    """Show a network node by node: shapes, parameters, perturbed units, multiplications of a forward pass.

    Example: nodepert summary --network conv --dataset cifar10

    Args:
        network: Network, as a spec.
        dataset: Data set, as a spec, whose inputs and outputs the network has.
        data_dir: Folder of the data files, which are read if the shape of the data is not known without them.
    """
    from nodepert.studies.summary import summary
    from nodepert.training import devices

    run = Run(network=network, dataset=dataset)
    devices.start()
    print(summary(run, data_dir=data_dir))
