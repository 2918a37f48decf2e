"""The command line of the original code: `python nodepert/main.py -network fc -dataset mnist -update_rule np ...`.

With `-log_expdata True` it appends to explogs/<exp_name>/<network>.csv, like the original code. Several processes may
append at the same time. Training is that of `nodepert train`, which has more options.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: import the package, not its modules by their bare names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from nodepert.cli.exits import fail, reported
from nodepert.studies.callbacks import Callback
from nodepert.studies.run import Run
from nodepert.studies.store.run_folder import checked_name
from nodepert.studies.store.tables import append_rows

COLUMNS = ("epoch", "epoch_time", "train_acc", "test_acc")  # of its CSV


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors."""

    def error(self, message: str):
        fail(f"{message} (see -h)")


def boolean(text: str) -> bool:
    """A boolean, spelt as the original code accepts it."""
    words = {"true": True, "t": True, "1": True, "yes": True, "y": True}
    words |= {"false": False, "f": False, "0": False, "no": False, "n": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")
    return words[text.lower()]


def parser() -> Parser:
    """The options and defaults of the original code."""
    p = Parser(description="The command line of the original code; see also 'nodepert train'.", allow_abbrev=False)
    p.add_argument("-dataset", default="mnist", help="mnist, fmnist, cifar10, cifar100, ... (default: mnist)")
    p.add_argument("-network", default="fc", help="fc, linfc, conv or conv-large (default: fc)")
    p.add_argument("-update_rule", default="np", help="np or sgd (default: np)")
    p.add_argument("-n_hl", type=int, default=2, help="number of hidden layers, fc and linfc (default: 2)")
    p.add_argument("-lr", type=float, default=1e-2, help="learning rate (default: 0.01)")
    p.add_argument("-batchsize", type=int, default=100, help="examples per update (default: 100)")
    p.add_argument("-hl_size", type=int, default=500, help="units per hidden layer, fc and linfc (default: 500)")
    p.add_argument("-num_epochs", type=int, default=4, help="epochs (default: 4)")
    p.add_argument("-wd", type=float, default=0.0, help="weight shrinkage per update (default: 0)")
    p.add_argument("-exp_name", default="npexp", help="directory under explogs (default: npexp)")
    p.add_argument("-log_expdata", type=boolean, nargs="?", const=True, default=False, help="append to the CSV")
    p.add_argument("-jobid", type=int, default=0, help="seed (default: 0)")
    return p


def to_run(args: argparse.Namespace) -> Run:
    """The run that these options describe: plain gradient descent, the default loss of the network."""
    shaped = f"{args.network}(width={args.hl_size}, depth={args.n_hl})"
    return Run(
        dataset=args.dataset.lower(),
        network=args.network if "conv" in args.network else shaped,
        rule=args.update_rule,
        optimizer="sgd",
        lr=args.lr,
        batchsize=args.batchsize,
        epochs=args.num_epochs,
        wd=args.wd,
        seed=args.jobid,
    )


def main(argv: list[str] | None = None) -> None:
    with reported():
        args = parser().parse_args(argv)
        settings = dict(vars(args))
        if "conv" in args.network:
            del settings["n_hl"], settings["hl_size"]
        run = to_run(args)
        table = Path("explogs") / checked_name(args.exp_name) / f"{args.network}.csv"

        from nodepert.studies.callbacks import summary
        from nodepert.studies.train import train

        class Rows(Callback):
            def on_epoch(self, run, row, state):
                print(summary(row), flush=True)
                if args.log_expdata:
                    append_rows(table, [{k: row[k] for k in COLUMNS} | settings])

        print(f"Dataset: {run.dataset}\nNetwork: {run.network}\nUpdate rule: {run.rule}")
        result = train(run, callbacks=[Rows()])
        if result.status != "finished":
            print(result.status)


if __name__ == "__main__":
    main()
