"""The figure of every rule's page: how it learns, and how its estimate points along the true gradient.

    python docs/scripts/rule_figures.py            # computes what the table lacks, and draws all figures
    python docs/scripts/rule_figures.py --again    # computes everything again
    python docs/scripts/rule_figures.py --only np wp

Digits (mnist5k), 784-50-50-10, cross-entropy, batches of 100, Adam with cosine decay, 20 epochs, three seeds; each rule
at the learning rate of the grid that ends at the least training loss, the test set unseen. Cosines are of seed 0 and
the same 100 training examples, before and after training, with the state that the rule has then. Writes
docs/figures/rules/rules.csv and a PNG for each page; the table has for every rule a row per epoch (test accuracy in per
cent, mean, least and greatest of the seeds), and a row per node before and after training.
"""

import argparse
import csv
import math
from pathlib import Path
from statistics import fmean

import numpy as np

import nodepert as npt
from nodepert.experiments.drawing import COLOURS, curve, save_figure, tidy
from nodepert.training.program import standardised

HERE = Path(__file__).parents[1] / "figures" / "rules"
TABLE = HERE / "rules.csv"
PAGES = {  # page: its rule, and what it is compared with beside backpropagation
    "sgd": ["sgd", "np"],
    "np": ["np", "np(samples=8)"],
    "inp": ["inp", "np"],
    "anp": ["anp", "np"],
    "wp": ["wp", "np"],
    "fa": ["fa"],
    "dfa": ["dfa", "fa"],
    "opzo": ["opzo", "dfa"],
    "guess": ["guess", "guess(guide=kp)", "dfa"],
    "usf": ["usf", "fa"],
    "kp": ["kp", "fa"],
    "dtp": ["dtp"],
    "decorrelate": ["decorrelate(np)", "decorrelate(np, rate=1e-4)", "np"],
    "by-node": ["np; out=exact", "np"],
}
RULES = list(dict.fromkeys(rule for rules in PAGES.values() for rule in rules))
RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
SEEDS, EPOCHS, DRAWS = 3, 20, 1000
COLUMNS = ["rule", "lr", "epoch", "node", "test_acc", "test_low", "test_high", "cosine", "cosine_mean", "gain", "bias",
           "verdict"]  # fmt: skip


class States(npt.Callback):
    """What training changes, before and after it, for the runs of seed 0."""

    def __init__(self):
        self.found = {}

    def on_epoch(self, run, row, state):
        if run.seed == 0 and row["epoch"] in (0, EPOCHS):
            self.found[run.lr, row["epoch"]] = state()


def computed(rule, data):
    """The rows of one rule."""
    task = {"dataset": "mnist5k", "network": "fc(width=50)", "loss": "cross-entropy", "epochs": EPOCHS}
    runs = [npt.Run(**task, rule=rule, lr=lr, seed=seed) for lr in RATES for seed in range(SEEDS)]
    states = States()
    results = npt.train(runs, data=data, callbacks=[states])
    by_rate = {lr: [r for r in results if r.run.lr == lr] for lr in RATES}
    lr = min(RATES, key=lambda lr: final_loss(by_rate[lr]))
    rows = []
    for alike in zip(*(r.rows for r in by_rate[lr]), strict=True):
        acc = [row["test_acc"] for row in alike]
        figures = {"test_acc": fmean(acc), "test_low": min(acc), "test_high": max(acc)}
        rows.append({"rule": rule, "lr": lr, "epoch": alike[0]["epoch"]} | figures)
    for epoch in (0, EPOCHS):
        for row in aligned(rule, states.found[lr, epoch], data):
            rows.append({"rule": rule, "lr": lr, "epoch": epoch} | {k: row[k] for k in COLUMNS if k in row})
    return [{k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def final_loss(results):
    """Mean training loss at the end; infinite where a run has diverged."""
    losses = [r.rows[-1]["train_loss"] if r.status == "finished" else math.inf for r in results]
    return fmean(losses)


def aligned(spec, state, data):
    """The rows of `npt.check` with parameters and rule state of this moment of training."""
    model, loss = npt.make_model("fc(width=50)", data.train_x.shape[1:], data.classes), npt.make_loss("cross-entropy")
    rule = npt.make_rule(spec, model, loss)
    chosen = np.random.default_rng(0).permutation(len(data.train_x))[:100]
    x = standardised({"mean": data.mean, "std": data.std}, data.train_x[chosen])
    as_it_is = rule._replace(init=lambda key, params, x: state.rule)
    return npt.check(model, as_it_is, loss, (x, data.train_y[chosen]), params=state.params, draws=DRAWS, warmup=0).rows


def draw(page, rows):
    """One page's figure: learning curves, and cosines by node."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9.5}):
        figure = Figure(figsize=(6.5, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2)
        rules, reference = PAGES[page], "np" if page == "sgd" else "sgd"
        for i, rule in enumerate(dict.fromkeys([*rules, reference])):
            own = [row for row in rows if row["rule"] == rule and not row["node"]]
            x, y, low, high = ([float(row[k]) for row in own] for k in ("epoch", "test_acc", "test_low", "test_high"))
            look = {"color": "grey", "marker": ""} if rule == reference else {"color": COLOURS[(0, 2, 3)[i]]}
            curve(left, x, y, None, i, rule, markevery=4, **look)
            left.fill_between(x, low, high, alpha=0.2, linewidth=0, color=look["color"])
        tidy(left, xlabel="epochs", ylabel="test accuracy (%)", ylim=(0, 100), xticks=range(0, EPOCHS + 1, 5))
        left.legend(frameon=False, loc="lower right", handlelength=1.6)
        cosines(right, [row for row in rows if row["rule"] == rules[0] and row["node"]])
        save_figure(figure, HERE / f"{page}.png")


def cosines(axes, rows):
    """Cosine with the gradient by node: of one draw (filled) and of the mean of all (open), before and after."""
    nodes = list(dict.fromkeys(row["node"] for row in rows))
    for row in rows:
        after = row["epoch"] != "0"
        place = -nodes.index(row["node"]) - (0.16 if after else -0.16)
        colour, marker = COLOURS[after], "D" if after else "o"
        axes.plot(float(row["cosine"]), place, marker, color=colour, markersize=4.5)
        axes.plot(float(row["cosine_mean"]), place, marker, color=colour, markersize=9, fillstyle="none")
    least = min([0.0, *(float(row[k]) for row in rows for k in ("cosine", "cosine_mean"))])
    tidy(axes, xlabel="cosine with the true gradient", xlim=(least - 0.06, 1.06), ylim=(0.6 - len(nodes), 0.6))
    axes.set_yticks([-i for i in range(len(nodes))], nodes)
    axes.tick_params(axis="y", length=0)
    axes.axvline(1, color="grey", linewidth=1, zorder=0)
    axes.axvline(0, color="grey", linewidth=1, zorder=0)
    axes.axhline(1.5 - len(nodes), color="grey", linewidth=1, linestyle=":")  # above "all nodes"
    plain = {"linestyle": "none", "color": "black", "marker": "o"}
    entries = [
        axes.plot([], [], "o", color=COLOURS[0], markersize=6, label="before training")[0],
        axes.plot([], [], "D", color=COLOURS[1], markersize=6, label="after it")[0],
        axes.plot([], [], markersize=4.5, label="one draw", **plain)[0],
        axes.plot([], [], markersize=9, fillstyle="none", label=f"mean of {DRAWS:,}", **plain)[0],
    ]
    axes.legend(handles=entries, frameon=False, loc="lower center", bbox_to_anchor=(0.45, 1), ncols=2, columnspacing=1,
                handletextpad=0.4)  # fmt: skip


def read():
    """The table as it is; no rows where there is none."""
    if not TABLE.exists():
        return []
    with open(TABLE, newline="") as file:
        return list(csv.DictReader(file))


def write(rows):
    """The table, in the order of the rules."""
    HERE.mkdir(parents=True, exist_ok=True)
    with open(TABLE, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: RULES.index(row["rule"])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The figures of the rules' pages.")
    parser.add_argument("--again", action="store_true", help="compute what is in the table, too")
    parser.add_argument("--only", nargs="+", choices=PAGES, default=list(PAGES), metavar="PAGE", help="only these")
    options = parser.parse_args()
    table, data = read(), npt.load_dataset("mnist5k")
    for rule in dict.fromkeys(["sgd", *(rule for page in options.only for rule in PAGES[page])]):
        if options.again or rule not in {row["rule"] for row in table}:
            print(rule, flush=True)
            table = [row for row in table if row["rule"] != rule] + computed(rule, data)
            write(table)
    for page in options.only:
        draw(page, read())
