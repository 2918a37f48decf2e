"""Every learning rule on Fashion-MNIST, 784-500-500-10, 10 epochs: one table, one picture, `make fashion`.

    python docs/scripts/fashion.py            # the table, at the learning rates written here
    python docs/scripts/fashion.py --tune     # how these were found: the least training loss on a grid, test set unseen
    python docs/scripts/fashion.py --only np wp

All rules share batch size (100), loss (cross-entropy) and optimizer (Adam, cosine schedule); each has its own learning
rate. Writes docs/experiments/fashion-table.md, and fashion.csv and fashion.png in docs/figures.
"""

import argparse
import csv
from pathlib import Path

import nodepert as npt

DOCS = Path(__file__).parents[1]
RULES = {  # rule: its learning rate
    "sgd": 1e-3,
    "np": 3e-4,
    "np(samples=8, noise=rademacher)": 3e-4,
    "np(baseline=running, sigma=0.1)": 1e-4,
    "np; out=exact": 1e-3,
    "inp": 3e-4,
    "anp": 3e-4,
    "wp": 1e-3,
    "wp(rank=1, sharing=example)": 1e-3,
    "fa": 1e-3,
    "dfa": 1e-3,
    "usf": 1e-3,
    "kp": 3e-3,
    "dtp": 1e-3,
    "decorrelate(sgd)": 1e-3,
    "decorrelate(np)": 1e-3,
}
GRID = [3e-5, 1e-4, 3e-4, 1e-3, 3e-3]
TUNING = [("fmnist(train=12000)", 5), ("fmnist", 4)]  # first the grid on few images, then its best rates on all


def run(rule: str, lr: float, dataset: str = "fmnist", epochs: int = 10) -> npt.Run:
    """The task of this table."""
    return npt.Run(dataset=dataset, network="fc(width=500, depth=2)", loss="cross-entropy", rule=rule, lr=lr,
                   optimizer="adam(schedule=cosine)", batchsize=100, epochs=epochs)  # fmt: skip


def tune(rules: list[str]) -> None:
    """Print the final training loss at every learning rate of the grid, then at the best and the one below it on all
    images: rates that do for few updates can be too high for many."""
    print(f"{'rule':34}" + "".join(f"{lr:>9.0e}" for lr in GRID))
    for rule in rules:
        rates = GRID
        for dataset, epochs in TUNING:
            data = npt.load_dataset(dataset)
            losses = {lr: npt.train(run(rule, lr, dataset, epochs), data=data).rows[-1]["train_loss"] for lr in rates}
            print(f"{rule:34}" + "".join(f"{losses[lr]:9.3f}" if lr in losses else " " * 9 for lr in GRID), flush=True)
            best = min(losses, key=lambda lr: losses[lr] if losses[lr] == losses[lr] else float("inf"))
            rates = [lr for lr in GRID if best / 4 < lr <= best]
        print(f"{'':34}learning rate {best:g}")


def table(rules: list[str]) -> None:
    """Train every rule, and write table and picture as each is done."""
    data, results, lines = npt.load_dataset("fmnist"), {}, []
    for rule in rules:
        result = npt.train(run(rule, RULES[rule]), data=data)
        last, seconds = result.rows[-1], sorted(row["epoch_time"] for row in result.rows[1:])
        figures = {"train_acc": last["train_acc"], "test_acc": last["test_acc"]}
        median = round(seconds[len(seconds) // 2], 2)
        lines.append({"rule": rule, "lr": RULES[rule], **figures, "s_per_epoch": median, "status": result.status})
        results[rule] = result.rows
        print(*lines[-1].values(), sep="   ", flush=True)
        write(lines)
        npt.learning_curves(results, DOCS / "figures" / "fashion.png", "Fashion-MNIST, 784-500-500-10")


def write(lines: list[dict]) -> None:
    """fashion-table.md and fashion.csv."""
    text = ["| rule | learning rate | train % | test % | s per epoch |", "|---|---|---|---|---|"]
    row = "| `{rule}` | {lr:g} | {train_acc:.2f} | {test_acc:.2f} | {s_per_epoch:.2f} |"
    (DOCS / "experiments" / "fashion-table.md").write_text(
        "\n".join([*text, *(row.format(**line) for line in lines)]) + "\n"
    )
    with open(DOCS / "figures" / "fashion.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Every learning rule on Fashion-MNIST.")
    parser.add_argument("--tune", action="store_true", help="compare learning rates instead")
    parser.add_argument("--only", nargs="+", choices=RULES, default=list(RULES), metavar="RULE", help="only these")
    options = parser.parse_args()
    (tune if options.tune else table)(options.only)
