"""The command `nodepert results`: the rows of saved runs as one table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from nodepert.cli.options import Flat
from nodepert.cli.output import Output
from nodepert.studies.results import load_results
from nodepert.studies.store.tables import check_table, write_table


def results(
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")],
    out: Path = Path("runs"),
    last: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    to: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    output: Flat[Output] = Output(),
) -> None:
    """Write the rows of all runs of a study as one table: a row per run and epoch, with the options of the run.

    Example: nodepert results weight-decay --to weight-decay.parquet

    Args:
        name: The study.
        out: Directory of all results.
        last: Only the last epoch of each run.
        to: The file, .csv or .parquet, in an existing directory; of .csv only a table of results is replaced. Default:
            print as CSV.
        output: What is printed. With --json the rows.
    """
    if to:
        check_table(to)
    frame = load_results(name, out, last=last)

    def text() -> None:
        if not to:
            frame.to_csv(sys.stdout, index=False, lineterminator="\n")
        elif not output.quiet:
            print(f"{to}: {len(frame):,} rows of {frame['id'].nunique():,} runs")

    if to:
        write_table(frame, to)
    output.show(text, lambda: frame.to_dict(orient="records"))
