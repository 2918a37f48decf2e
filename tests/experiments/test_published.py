"""published: tables of papers are quoted for their own tasks only, and compared with ours."""

import math

import pytest

from nodepert.errors import UserError
from nodepert.experiments import build
from nodepert.experiments.shared.published import PUBLISHED
from nodepert.registry import check


@pytest.mark.parametrize("setting", PUBLISHED)
def test_tables_name_what_there_is_and_quote_rows_that_they_have(setting):
    table = PUBLISHED[setting]
    for row in table.rows.values():
        assert check("rule", row.rule) and check("optimizer", row.optimizer)
    for column in table.columns.values():
        assert check("network", column.network) and column.errors.keys() <= table.rows.keys()
    assert len(build("published", "small", setting=setting).parts) == table.shown * len(table.rows)


def test_errors_are_quoted_beside_ours():
    experiment = build("published", "small", columns=("MNIST M/1/16",), methods=("BP", "LG-FG-A"))
    rows = [part | {"seed": seed, "test_error": error + seed / 10, "train_error": 0.0}
            for part, error in zip(experiment.parts, (2.0, 4.0), strict=True) for seed in (0, 1)]  # fmt: skip
    says = [finding.says for finding in experiment.findings(rows)]
    assert says == [
        "MNIST M/1/16, BP: test error 2.05 ± 0.05 %, train 0.00 ± 0.00 %; theirs 2.41 % test and 0.00 % train",
        "MNIST M/1/16, LG-FG-A: test error 4.05 ± 0.05 %, train 0.00 ± 0.00 %; theirs 2.55 % test and 0.00 % train",
        "1 of 2 test errors are at most 0.5 points above those of Ren et al. 2023, table 3; not MNIST M/1/16, LG-FG-A",
    ]


def test_another_task_has_no_published_errors():
    experiment = build("published", "smoke")
    assert all(math.isnan(error) for part in experiment.parts for error in experiment.theirs(part))


@pytest.mark.parametrize("wrong", [{"columns": ("MNIST L",)}, {"methods": ("bp",)}, {"seeds": 0}, {"setting": "x"}])
def test_bad_options_are_refused(wrong):
    with pytest.raises(UserError):
        build("published", "smoke", **wrong)
