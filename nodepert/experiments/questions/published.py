"""A published table, computed again: the errors of the paper and ours, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nodepert.experiments.drawing import Picture, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.published import PUBLISHED, Published
from nodepert.experiments.shared.tables import finite, where
from nodepert.experiments.shared.tasks import curves, make_hyper, make_task
from nodepert.training.metrics import diverged, mean_error

NEAR = 0.5  # points of error: as in the paper, or better
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"methods": ("BP",), "dataset": "digits", "network": "fc(width=20)", "epochs": 3},
    "small": {},
    "paper": {"epochs": 100, "seeds": 5},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PublishedTable(Experiment):
    """Every row of a published table is trained on the tasks of its columns, with the paper's network and batch size,
    cross-entropy and fixed learning rates, and several seeds. The errors are those after the last epoch.

    Args:
        setting: The table: of Ren et al. 2023, or after Dalm et al. 2024.
        columns: Columns of the table, by the paper's labels. Default: the first ones.
        methods: Rows of the table, by the paper's labels. Default: all.
        dataset: Another data set for all columns.
        network: Another network for all columns.
        epochs: Passes over the training data; three times as many for the rows FG-A and LG-FG-A.
        seeds: Runs of each row.
    """

    setting: Literal["ren2023", "dalm2024"] = "ren2023"
    columns: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    dataset: str = ""
    network: str = ""
    epochs: int = 20
    seeds: int = 2

    across = ("columns", "methods")
    picture = Picture("theirs_test", "test_error", ("column",))

    def __post_init__(self):
        known = {"columns": [*self.table.columns], "methods": [*self.table.rows]}
        known_by_default = {"columns": known["columns"][: self.table.shown], "methods": known["methods"]}
        for option, labels in known.items():
            if not getattr(self, option):
                object.__setattr__(self, option, tuple(known_by_default[option]))
            self.require(lambda label, labels=labels: label in labels, f"among {', '.join(labels)}", option)
        self.at_least(1, "epochs", "seeds")

    @property
    def table(self) -> Published:
        return PUBLISHED[self.setting]

    @property
    def size(self) -> tuple[float, float]:
        return 7.0, 1.4 + 0.3 * len(self.columns) * len(self.methods)

    def theirs(self, part: Part) -> tuple[float, float]:
        """The test and train errors of the paper, nan where it reports none, as for another data set or network."""
        own = not self.dataset and not self.network
        errors = self.table.columns[part["column"]].errors.get(part["method"] if own else "", (None, None))
        test, train = (math.nan if error is None else float(error) for error in errors)
        return test, train

    def rows(self, part: Part) -> Iterator[Row]:
        column, row = self.table.columns[part["column"]], self.table.rows[part["method"]]
        task = make_task(self.load, self.dataset or column.dataset, self.network or column.network, "cross-entropy",
                         self.table.batchsize)  # fmt: skip
        hypers = [make_hyper(row.rule, row.lr, seed, row.optimizer) for seed in range(self.seeds)]
        test, train = self.theirs(part)
        epochs = row.longer * self.epochs
        for seed, run in enumerate(curves(task, hypers, epochs)):
            last, finished = run[-1], run[-1]["epoch"] == epochs and not diverged(run[-1])
            errors = {f"{s}_error": 100 - last[f"{s}_acc"] if finished else math.nan for s in ("test", "train")}
            seconds = sum(r["epoch_time"] for r in run)
            yield {"rule": row.rule, "lr": row.lr, "epochs": epochs, "seed": seed, **errors, "theirs_test": test,
                   "theirs_train": train, "seconds": seconds}  # fmt: skip

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        axes, parts = figure.subplots(), [*self.parts][::-1]
        heights = list(range(len(parts)))
        ours, errors = zip(*(mean_error(finite(where(rows, **p), "test_error")) for p in parts), strict=True)
        axes.errorbar(ours, heights, xerr=errors, linestyle="none", label="ours, mean and s.e.", **style(0))
        axes.plot([self.theirs(p)[0] for p in parts], heights, linestyle="none", label=self.table.source.split(",")[0],
                  fillstyle="none", **style(1))  # fmt: skip
        several = len(self.columns) > 1
        axes.set_yticks(heights, [f"{p['column']}: {p['method']}" if several else p["method"] for p in parts])
        tidy(axes, xlabel="test error, %", xlim=(0, None))
        legend(figure, axes)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        findings, known, above = [], 0, []
        for part in self.parts:
            own, (test, train) = where(rows, **part), self.theirs(part)
            (mean, error), (fitted, spread) = (mean_error(finite(own, f"{s}_error")) for s in ("test", "train"))
            name = f"{part['column']}, {part['method']}"
            says = f"{name}: test error {mean:.2f} ± {error:.2f} %, train {fitted:.2f} ± {spread:.2f} %"
            theirs = " and ".join(f"{v:.2f} % {s}" for s, v in (("test", test), ("train", train)) if math.isfinite(v))
            findings.append(Finding(f"{says}; theirs {theirs}" if theirs else says, math.isfinite(mean)))
            if math.isfinite(test):
                known, above = known + 1, above if mean <= test + NEAR else [*above, name]
        says = (f"{known - len(above)} of {known} test errors are at most {NEAR} points above those of "
                f"{self.table.source}{''.join(f'; not {name}' for name in above)}")  # fmt: skip
        return [*findings, Finding(says, len(above) < known)] if known else findings
