"""Published tables: what a paper trained, how, and what it reports, in per cent error."""

from __future__ import annotations

from typing import NamedTuple

MOMENTUM, ADAM = "momentum(schedule=cosine)", "adam(schedule=cosine)"
Errors = tuple[float | None, float | None]  # test and train error, per cent; None: not reported


class Column(NamedTuple):
    """One column of a table: the task, and the errors reported for each rule."""

    dataset: str
    network: str
    errors: dict[str, Errors]  # by the label of the rule


class Row(NamedTuple):
    """One row of a table: a rule, and how it is trained here."""

    rule: str
    lr: float
    optimizer: str
    longer: int = 1  # epochs, in those of the table


class Published(NamedTuple):
    """A table; `columns` and `rows` by the labels of the paper. The first `shown` columns are the default."""

    source: str
    batchsize: int
    columns: dict[str, Column]
    rows: dict[str, Row]
    shown: int = 1


REN = Published(
    "Ren et al. 2023, table 3",
    128,
    {
        "MNIST S/1/1": Column("mnist", "mixer(width=256, groups=1, predict=replicated)", {
            "BP": (2.66, 0), "FA": (2.82, 0), "DFA": (3.31, 0), "FG-W": (9.25, 8.93),
            "FG-A": (3.24, 1.53), "LG-FG-A": (3.24, 1.53)}),
        "MNIST M/1/16": Column("mnist", "mixer(width=512, groups=16, predict=replicated)", {
            "BP": (2.41, 0), "FA": (2.90, 0), "DFA": (3.17, 0), "FG-W": (8.56, 8.64),
            "FG-A": (3.76, 1.75), "LG-FG-A": (2.55, 0)}),
        "CIFAR-10 M/8/16": Column("cifar10", "mixer(width=512, groups=16, patches=8, blocks=4, predict=replicated)", {
            "BP": (33.62, 0), "FA": (39.94, 28.44), "DFA": (38.80, 33.69),
            "FG-W": (55.95, 54.28), "FG-A": (59.72, 41.29),
            "LG-FG-A": (30.68, 19.39)}),
    },
    {
        "BP": Row("sgd", 0.1, MOMENTUM),
        "FA": Row("fa", 0.1, MOMENTUM),
        "DFA": Row("dfa(active=True)", 0.1, MOMENTUM),
        "FG-W": Row("wp(difference=jvp); out=exact", 1e-3, ADAM),
        "FG-A": Row("np(difference=jvp, active=True, head=evaluated)", 3e-4, ADAM, longer=3),
        "LG-FG-A": Row("local(np(difference=jvp, active=True, head=evaluated, credit=own))", 3e-4, ADAM, longer=3),
    },
    shown=2,
)  # fmt: skip

DALM = Published(
    "Dalm et al. (arXiv 2310.00965); the number is that of a public copy of their code after 20 epochs",
    1000,
    {
        "MNIST 3x1024": Column("mnist", "fc(width=1024, depth=3, activation=leaky-relu)", {"DANP": (3.58, None)}),
    },
    {
        "BP": Row("sgd", 1e-4, "adam"),
        "NP": Row("np", 1e-4, "adam"),
        "INP": Row("inp", 1e-4, "adam"),
        "ANP": Row("anp", 1e-4, "adam"),
        "DNP": Row("decorrelate(np)", 1e-4, "adam"),
        "DINP": Row("decorrelate(inp)", 1e-4, "adam"),
        "DANP": Row("decorrelate(anp)", 1e-4, "adam"),
    },
)  # fmt: skip

PUBLISHED = {"ren2023": REN, "dalm2024": DALM}
