"""`nodepert evaluate` and `nodepert predict` on runs, ids and saved files; examples from every kind of file."""

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small import RUN

import nodepert as npt
from nodepert.cli import app as cli

X = npt.load_dataset("digits").test_x[:4]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return npt.train(replace(RUN, epochs=1), name="n", out=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def examples(tmp_path):
    """The same four digits in every kind of file, and files that hold something else."""
    np.save("x.npy", X)
    np.savez("x.npz", x=X, y=np.arange(4))
    np.savez("only.npz", whatever=X)
    rows = "\n".join(",".join(map(str, x.ravel())) for x in X)
    (tmp_path / "x.csv").write_text(rows)
    (tmp_path / "headed.csv").write_text(",".join(f"p{i}" for i in range(64)) + "\n" + rows)
    (tmp_path / "folder").mkdir()
    for i, x in enumerate(X):
        Image.fromarray(x[..., 0]).save(f"folder/{i}.png")
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    np.savez("two.npz", a=X, b=X)
    (tmp_path / "short.csv").write_text("1,2\n")
    (tmp_path / "words.csv").write_text(rows + "\n" + ",".join(["0"] * 63 + ["x"]))
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "x.txt").write_text("1")
    Image.new("L", (9, 8)).save("big.png")
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save("deep.png")
    np.save("pickled.npy", np.array([{}], dtype=object), allow_pickle=True)


def refused(*arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and not out and err.count("\n") == 1
    return err


def test_predictions_as_json_and_quietly(result, examples, capsys):
    predict = ["predict", str(result.save("a.npz")), "x.npy"]
    cli.main([*predict, "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["prediction"] for row in rows] == result.predict(X).tolist() and rows[1]["index"] == 1
    cli.main([*predict, "--to", "p.csv", "--quiet"])
    assert capsys.readouterr().out == ""


def test_evaluate_prints_the_metrics_of_the_run(result, capsys):
    cli.main(["evaluate", str(result.save("a.npz"))])
    found = capsys.readouterr().out
    assert f"test accuracy: {result.test_acc:.2f} %\n" in found and found.count("\n") == 4
    cli.main(["evaluate", "a.npz", "--json"])
    assert json.loads(capsys.readouterr().out) == pytest.approx(result.evaluate())
    cli.main(["evaluate", result.run.id, "--out", str(result.folder.parents[1]), "--dataset", "digits(test=9)"])
    assert capsys.readouterr().out != found
    assert "no run of this id in nowhere" in refused("evaluate", "x", "--out", "nowhere", capsys=capsys)


@pytest.mark.parametrize("file", ["x.npy", "x.npz", "only.npz", "x.csv", "headed.csv", "folder"])
def test_every_kind_of_file_has_the_same_predictions(file, result, examples, capsys):
    cli.main(["predict", str(result.folder), file, "--to", "p.csv", "--outputs"])
    assert capsys.readouterr().out == "p.csv: predictions of 4 examples\n"
    with open("p.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [int(row["prediction"]) for row in rows] == result.predict(X).tolist()
    assert [row["index"] for row in rows] == ["0", "1", "2", "3"]
    assert [row.get("file") for row in rows] == [f"{i}.png" if file == "folder" else None for i in range(4)]
    outputs = [[float(row[f"output_{i}"]) for i in range(10)] for row in rows]
    np.testing.assert_array_equal(np.float32(outputs), result.outputs(X))


def test_a_network_of_a_table_predicts_its_labels_of_files_of_its_columns(tmp_path, monkeypatch, capsys):
    fuel = np.array(["gas", "petrol", "diesel"])[np.arange(30) % 3]
    make = np.array(["b", "a"])[np.arange(30) % 2]
    cars = pd.DataFrame({"weight": np.linspace(1, 3, 30), "fuel": fuel, "make": make})
    cars.to_csv("cars.csv", index=False)
    spec = "table(path='cars.csv', target=make)"
    made = npt.train(replace(RUN, dataset=spec, batchsize=10), name="n", out=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    cars[["make", "fuel", "weight"]].to_csv("new.csv", index=False)
    labels = [*npt.load(made.save("a.npz")).classes[made.predict(cars)]]
    for network in ("a.npz", str(made.folder)):
        cli.main(["predict", network, "new.csv", "--to", "p.csv", "--quiet"])
        assert pd.read_csv("p.csv").prediction.tolist() == labels and {*labels} <= {"a", "b"}
    cli.main(["predict", "a.npz", "new.csv", "--json"])
    assert [row["prediction"] for row in json.loads(capsys.readouterr().out)] == labels
    found = made.evaluate((cars, cars.make))
    assert found == npt.load("a.npz").evaluate((cars[["fuel", "weight"]], (cars.make == "b").astype(int)))
    cli.main(["evaluate", "a.npz", "--dataset", "table(path='new.csv', target=make)", "--json"])
    assert json.loads(capsys.readouterr().out) == pytest.approx(made.evaluate(npt.load_dataset(spec, tmp_path)))


def test_without_a_target_the_table_is_printed(result, examples, capsys):
    cli.main(["predict", str(result.folder), "folder/1.png"])
    assert capsys.readouterr().out == f"index,file,prediction\n0,1.png,{result.predict(X)[1]}\n"


@pytest.mark.parametrize(
    "file, message",
    [
        ("two.npz", "has the arrays a, b; name the inputs x"),
        ("short.csv", "row 1 has 2 numbers; an example of this network has 64, (8, 8, 1)"),
        ("words.csv", "row 5 has a cell that is not a number"),
        ("empty", "there are no images in empty"),
        ("bad.png", "bad.png is not a sound image"),
        ("big.png", "big.png is 8 x 9 pixels; this network takes 8 x 8"),
        ("deep.png", "more than 8 bits"),
        ("x.txt", "cannot tell the format of x.txt"),
        ("pickled.npy", "without pickles"),
        ("none.npy", "cannot read none.npy: no such file"),
    ],
)
def test_a_wrong_file_is_one_line_and_nothing_is_written(file, message, result, examples, capsys, tmp_path):
    assert message in refused("predict", result.folder, file, "--to", "p.csv", capsys=capsys)
    assert not (tmp_path / "p.csv").exists()


def test_a_wrong_target_is_one_line(result, examples, capsys):
    assert "must end in .csv" in refused("predict", result.folder, "x.npy", "--to", "p.txt", capsys=capsys)
    assert "there is no folder no" in refused("predict", result.folder, "x.npy", "--to", "no/p.csv", capsys=capsys)


def test_a_table_of_the_user_is_never_overwritten(result, examples, tmp_path, capsys):
    predict, path = ("predict", result.folder, "x.csv", "--to"), tmp_path / "x.csv"
    kept = path.read_bytes()
    assert "x.csv exists, and this command did not write it" in refused(*predict, "x.csv", capsys=capsys)
    assert "did not write it" in refused(
        "results", "n", "--out", result.folder.parent.parent, "--to", "x.csv", capsys=capsys
    )
    assert path.read_bytes() == kept
    for _ in range(2):  # its own table is replaced
        cli.main([*map(str, predict), "p.csv", "--quiet"])
    again = refused("predict", result.folder, "p.csv", "--to", "p.csv", capsys=capsys)
    assert "--to p.csv is the file of the inputs" in again
