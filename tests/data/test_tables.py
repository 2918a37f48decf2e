"""Tables as data sets: your own files, those in packages, MATLAB's; and a teacher."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

import nodepert as npt

N = 40
FUEL = np.array(["petrol", "diesel", "gas"])[np.arange(N) % 3]
FRAME = pd.DataFrame({
    "id": [f"car {i}" for i in range(N)], "weight": np.linspace(1.5, 3, N), "fuel": FUEL,
    "turbo": np.arange(N) % 2 == 0, "cylinders": 3 + np.arange(N) % 4, "mpg": np.linspace(40, 20, N),
    "make": np.array(["b", "a"])[np.arange(N) % 2],
})  # fmt: skip


def table(**options):
    given = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return npt.load_dataset(f"table({given})")


@pytest.mark.parametrize("file", ["cars.csv", "cars.tsv", "cars.csv.gz", "cars.parquet"])
def test_columns_are_inputs_and_targets(file):
    if file.endswith("parquet"):
        pytest.importorskip("pyarrow")
        FRAME.astype({"fuel": "category"}).to_parquet(file)
    else:
        FRAME.to_csv(file, index=False, sep="\t" if "tsv" in file else ",")
    data = table(path=file, target="mpg", drop="id, make")
    assert (data.task, data.train_x.shape, data.test_x.shape, data.train_y.shape) == (
        "values",
        (32, 6),
        (8, 6),
        (32, 1),
    )
    x, y = np.concatenate([data.train_x, data.test_x]), np.concatenate([data.train_y, data.test_y])[:, 0]
    order = np.argsort(-y)  # as in the file
    np.testing.assert_allclose(y[order], FRAME.mpg)
    columns = [FRAME.weight, FUEL == "diesel", FUEL == "gas", FUEL == "petrol", FRAME.turbo, FRAME.cylinders]
    np.testing.assert_allclose(x[order], np.stack([np.asarray(c, float) for c in columns], 1), rtol=1e-6)
    np.testing.assert_array_equal(data.train_y, table(path=file, target="mpg", drop="id, make").train_y)
    assert (data.train_y != table(path=file, target="mpg", drop="id, make", seed=1).train_y).any()


def test_a_target_of_texts_is_classes_and_several_columns_are_values():
    FRAME.to_csv("cars.csv", index=False)
    FRAME.iloc[:7].to_csv("more.csv", index=False)
    data = table(path="cars.csv", target="make", drop="id", test_path="more.csv")
    assert (data.task, data.names, len(data.train_y)) == ("classes", ("a", "b"), N)
    assert data.test_y.tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert table(path="cars.csv", target="turbo", drop="id").names == ("False", "True")
    assert table(path="cars.csv", target="cylinders", drop="id", task="classes").names == ("3", "4", "5", "6")
    assert table(path="cars.csv", target="cylinders", drop="id", task="values").outputs == 1
    assert table(path="cars.csv", target="mpg, weight", drop="id").outputs == 2


def test_a_file_is_looked_for_in_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    FRAME.to_csv(tmp_path / "data" / "cars.csv", index=False)
    monkeypatch.delenv("NODEPERT_DATA_DIR", raising=False)
    spec = "table(path='cars.csv', target=mpg, drop=id)"
    assert npt.load_dataset(spec, tmp_path / "data").source == str(tmp_path / "data" / "cars.csv")
    with pytest.raises(npt.DataError, match=r"^no file cars\.csv$"):
        npt.load_dataset(spec)


def with_cell(name, column, value):
    frame = FRAME.astype({column: object})
    frame.loc[6, column] = value
    frame.to_csv(name, index=False)


WRONG = {
    "empty": ({"path": "gap.csv", "target": "mpg", "drop": "id"}, "an empty cell in row 7, column 'weight' (1 in all)"),
    "text": ({"path": "odd.csv", "target": "mpg", "drop": "id"}, "column 'weight' has numbers, but '?' in row 7"),
    "many": ({"path": "long.csv", "target": "mpg"}, "'id' has 120 different texts, each of which would be an input"),
    "whole": ({"path": "cars.csv", "target": "cylinders"}, "has whole numbers: give task=classes or task=values"),
    "fractions": ({"path": "cars.csv", "target": "mpg", "task": "classes"}, "has fractions, which are no classes"),
    "texts": ({"path": "cars.csv", "target": "make", "task": "values"}, "has texts, which are no values"),
    "two": ({"path": "cars.csv", "target": "make,fuel", "task": "classes"}, "classes are one column; got make, fuel"),
    "name": ({"path": "cars.csv", "target": "mgp"}, "no column 'mgp' (did you mean 'mpg'?); there are: id, weight"),
    "split": ({"path": "cars.csv", "target": "mpg", "test_path": "less.csv"}, "less.csv: no column 'mpg'; there are:"),
    "nothing": ({"path": "cars.csv", "target": ",".join(FRAME)}, "no column is left for the inputs"),
    "file": ({"path": "no.csv", "target": "mpg"}, "no file no.csv"),
    "bytes": ({"path": "bytes.csv", "target": "mpg"}, "bytes.csv: not a readable table"),
    "rows": ({"path": "none.csv", "target": "mpg"}, "none.csv: 0 rows are too few"),
    "share": ({"path": "cars.csv", "target": "mpg", "test": 2}, "test is a share of the rows, above 0 and below 1"),
    "no target": ({"path": "cars.csv"}, "give a file and a column of it, as in table(path='cars.csv', target=price)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_table_is_one_line(name):
    options, says = WRONG[name]
    FRAME.to_csv("cars.csv", index=False)
    with_cell("gap.csv", "weight", None)
    with_cell("odd.csv", "weight", "?")
    pd.concat([FRAME] * 3).assign(id=[f"car {i}" for i in range(3 * N)]).to_csv("long.csv", index=False)
    FRAME.drop(columns="mpg").to_csv("less.csv", index=False)
    FRAME.iloc[:0].to_csv("none.csv", index=False)
    with open("bytes.csv", "wb") as file:
        file.write(b"\x00\xff\xfe" * 9)
    with pytest.raises(npt.UserError, match=re.escape(says)) as error:
        table(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("cells", "options", "says"),
    [
        ({"cylinders": "six"}, {"target": "cylinders", "task": "classes"}, "'cylinders': 'six' is not in the training"),
        ({"cylinders": 7}, {"target": "cylinders", "task": "classes"}, "'cylinders': '7' is not in the training"),
        ({"make": "c"}, {"target": "make"}, "'make': 'c' is not in the training data, which have: a, b"),
        ({"mpg": "low"}, {"target": "mpg"}, "'mpg': 'low' is not a number"),
        ({"fuel": "steam"}, {"target": "mpg"}, "'fuel': 'steam' is not in the training data, which have: diesel, gas"),
        ({"weight": "heavy"}, {"target": "mpg"}, "'weight': 'heavy' is not a number"),
    ],
)
def test_what_only_the_test_file_has_is_one_line(cells, options, says):
    FRAME.to_csv("cars.csv", index=False)
    FRAME[:9].assign(**cells).to_csv("more.csv", index=False)
    with pytest.raises(npt.DataError, match=re.escape(f"more.csv: row 1, column {says}")):
        table(path="cars.csv", drop="id", test_path="more.csv", **options)


def test_a_loss_that_does_not_fit_is_refused_without_advice_to_register_the_table():
    FRAME.to_csv("cars.csv", index=False)
    run = npt.Run(dataset="table(path='cars.csv', target=mpg, drop=id)", network="fc(width=2)", loss="mse", batchsize=8)
    with pytest.raises(npt.UserError, match=r"which are values; give one of: [^;]*by-target$"):
        npt.train(run)


def test_an_unquoted_path_is_told_to_be_quoted():
    with pytest.raises(npt.UserError, match=r"quote other texts, as in path='a\.csv'"):
        npt.load_dataset("table(path=cars.csv, target=mpg)")


@pytest.mark.parametrize(("name", "shape", "tests"), [("diabetes", (353, 10), 89), ("autompg", (313, 9), 79)])
def test_tables_in_packages_are_split_once_for_all(name, shape, tests):
    data = npt.load_dataset(name)
    assert data.train_x.shape == shape and data.test_x.shape[0] == tests and data.task == "values"
    assert len(npt.load_dataset(f"{name}(train=50)").train_y) == 50
    splits = [np.hstack([data.train_x, data.train_y]), np.hstack([data.test_x, data.test_y])]
    rows = np.unique(np.concatenate(splits), axis=0)
    assert len(rows) == shape[0] + tests
    assert rows[:, -1].sum() == pytest.approx(67243 if name == "diabetes" else 9190.8)  # of the authors' tables


def test_sarcos_is_read_from_the_data_folder(tmp_path):
    (tmp_path / "sarcos").mkdir()
    with pytest.raises(npt.DataNotFound, match=f"put its files into {tmp_path}/sarcos and give --data-dir"):
        npt.load_dataset("sarcos", tmp_path)
    values = np.random.default_rng(0).normal(size=(30, 28))
    savemat(tmp_path / "sarcos" / "sarcos_inv.mat", {"sarcos_inv": values})
    savemat(tmp_path / "sarcos" / "sarcos_inv_test.mat", {"sarcos_inv_test": values[:9]})
    data = npt.load_dataset("sarcos", tmp_path)
    assert data.train_x.shape == (30, 21) and data.test_y.shape == (9, 7)
    np.testing.assert_allclose(data.train_y, values[:, 21:])
    savemat(tmp_path / "sarcos" / "sarcos_inv_test.mat", {"other": values})
    with pytest.raises(npt.DataError, match=r"sarcos_inv_test\.mat: it has no table 'sarcos_inv_test' of 28 columns"):
        npt.load_dataset("sarcos", tmp_path)
    (tmp_path / "sarcos" / "sarcos_inv_test.mat").write_bytes(b"no mat")
    with pytest.raises(npt.DataError, match="not a readable MATLAB file"):
        npt.load_dataset("sarcos", tmp_path)


def test_a_teacher_is_its_formula():
    spec = "teacher(inputs=6, outputs=2, train=500, test=100, noise={}, depth={}, seed=3)"
    data = npt.load_dataset(spec.format(0.0, 0))
    weights, error, *_ = np.linalg.lstsq(data.train_x, data.train_y, rcond=None)
    assert (error < 1e-8).all() and abs(data.test_x @ weights - data.test_y).max() < 1e-4
    noisy = npt.load_dataset(spec.format(0.5, 0))
    assert 0.4 < (noisy.test_y - data.test_y).std() < 0.6
    deep = npt.load_dataset(spec.format(0.0, 2))
    assert np.linalg.lstsq(deep.train_x, deep.train_y, rcond=None)[1].min() > 1
    for wrong in ("noise=-1", "depth=-1", "inputs=0", "test=0"):
        with pytest.raises(npt.UserError, match=wrong.partition("=")[0]):
            npt.load_dataset(f"teacher({wrong})")
