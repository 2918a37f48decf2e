"""A network takes the columns, texts and labels of a table by name: of files, of DataFrames and of other data sets."""

import re

import numpy as np
import pandas as pd
import pytest

import nodepert as npt
from nodepert.data import schema
from nodepert.data.examples import read_examples
from nodepert.data.given import dataset_of
from nodepert.data.matching import matched, matched_targets
from nodepert.data.signature import from_json, signature_of

N = 60
RNG = np.random.default_rng(0)
FUEL = RNG.choice(["petrol", "diesel", "gas"], N)
CARS = pd.DataFrame({"weight": RNG.uniform(1, 3, N), "fuel": FUEL, "turbo": RNG.random(N) > 0.5,
                     "doors": RNG.integers(2, 6, N), "mpg": RNG.uniform(20, 40, N),
                     "make": np.where(RNG.random(N) > 0.3, "bmw", "audi")})  # fmt: skip
INPUTS = ["weight", "fuel", "turbo", "doors"]


def table(frame=CARS, target="make", drop="mpg", **options):
    frame.to_csv("cars.csv", index=False)
    given = "".join(f", {key}={value!r}" for key, value in options.items())
    return npt.load_dataset(f"table(path='cars.csv', target='{target}', drop='{drop}'{given})")


@pytest.fixture
def own():
    return from_json(signature_of(table()).to_json())


def expected(frame=CARS):
    texts = ("diesel", "gas", "petrol")
    return np.stack([frame.weight, *(frame.fuel == t for t in texts), frame.turbo, frame.doors], 1).astype(np.float32)


FORMATS = {
    "comma.csv": lambda frame, path: frame.to_csv(path, index=False),
    "semicolon.csv": lambda frame, path: frame.to_csv(path, index=False, sep=";"),
    "tab.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "packed.csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "index.csv": lambda frame, path: frame.to_csv(path),
    "a.parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("file", FORMATS)
def test_columns_of_a_file_are_matched_by_name_and_further_ones_left_out_with_a_remark(file, own, tmp_path, caplog):
    if file.endswith("parquet"):
        pytest.importorskip("pyarrow")
    FORMATS[file](CARS[CARS.columns[::-1]], tmp_path / file)
    x, _ = read_examples(tmp_path / file, own.shape, own.columns)
    np.testing.assert_allclose(x, expected(), rtol=1e-6)
    (remark,) = [r.getMessage() for r in caplog.records]
    assert "left out " in remark and "'make', 'mpg', which the network does not take" in remark
    assert ("a column without a name (an index?)" in remark) == (file == "index.csv")


def test_columns_of_a_data_frame_are_matched_by_name(own, caplog):
    for frame in (CARS[INPUTS], CARS[INPUTS[::-1]], CARS[INPUTS].astype({"fuel": "category", "doors": "Int64"})):
        np.testing.assert_allclose(own.inputs(frame), expected(), rtol=1e-6)
    assert not caplog.text
    np.testing.assert_allclose(own.inputs(expected()), expected())  # an array: by position


def cell(column, row, value):
    frame = CARS.astype({column: object})
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    "frame, message",
    [
        (CARS.drop(columns="fuel"), "no column 'fuel'; there are: weight, turbo, doors, mpg, make"),
        (CARS.rename(columns={"fuel": "fule"}), r"no column 'fuel' \(did you mean 'fule'\?\)"),
        (cell("fuel", 4, "steam"), "row 5, column 'fuel': 'steam' is not in .*which have: diesel, gas, petrol"),
        (cell("weight", 2, "heavy"), "row 3, column 'weight': 'heavy' is not a number"),
        (cell("doors", 0, None), r"an empty cell in row 1, column 'doors' \(1 in all\); fill it, or leave out the row"),
        (CARS.assign(weight=pd.Timestamp("2020-01-01")), "row 1, column 'weight': '2020-01-01 00:00:00' is not a num"),
    ],
)
def test_a_column_or_a_cell_that_the_network_does_not_know_is_one_line(frame, message, own, tmp_path):
    frame.to_csv("new.csv", index=False)
    for act in (lambda: own.inputs(frame), lambda: read_examples(tmp_path / "new.csv", own.shape, own.columns)):
        with pytest.raises(npt.UserError, match=message.replace(" 00:00:00", ".*")) as error:
            act()
        assert "\n" not in str(error.value)
    with pytest.raises(npt.UserError, match="got object; give a DataFrame, whose columns are matched by name"):
        own.inputs(CARS[INPUTS].to_numpy())


def test_a_file_without_a_heading_is_taken_by_position(own, tmp_path):
    x = expected()[:3]
    np.savetxt("x.csv", x, delimiter=",")
    np.testing.assert_array_equal(read_examples(tmp_path / "x.csv", own.shape, own.columns)[0].astype(np.float32), x)
    (tmp_path / "short.csv").write_text("1,2\n")
    with pytest.raises(npt.UserError, match=r"row 1 has 2 numbers; .* 6, .*; with a heading columns are matched by na"):
        read_examples(tmp_path / "short.csv", own.shape, own.columns)


def test_numbers_as_names_of_columns_are_a_heading(tmp_path):
    numbered = pd.DataFrame(RNG.normal(size=(N, 2))).assign(y=CARS.make)
    own = signature_of(table(numbered, target="y", drop=""))
    numbered[[1, 0]].to_csv("new.csv", index=False)
    found, _ = read_examples(tmp_path / "new.csv", own.shape, own.columns)
    np.testing.assert_allclose(found, numbered[[0, 1]])


@pytest.mark.parametrize("text", ["", "weight,fuel,turbo,doors\n", "a,b\n", "\n\n"])
@pytest.mark.parametrize("named", [True, False])
def test_a_file_without_examples_is_one_line(text, named, own, tmp_path):
    (tmp_path / "e.csv").write_text(text)
    with pytest.raises(npt.UserError, match=r"e.csv"):
        read_examples(tmp_path / "e.csv", own.shape, own.columns if named else None)
    np.save("e.npy", np.zeros((0, 6)))
    with pytest.raises(npt.UserError, match=r"e.npy has no examples"):
        read_examples(tmp_path / "e.npy", own.shape, None)


def test_another_table_is_the_same_data_whatever_its_order_and_its_texts(own):
    data = table()
    shuffled = CARS[["make", "doors", "turbo", "fuel", "weight", "mpg"]]
    there = matched(own, table(shuffled))
    for name in ("train_x", "test_x", "train_y", "test_y"):
        np.testing.assert_array_equal(getattr(there, name), getattr(data, name))
    assert there.names == data.names and there.train_x.dtype == data.train_x.dtype
    few = CARS[(CARS.fuel != "diesel") & (CARS.make == "bmw")]  # of fewer texts and labels
    part = matched(own, table(few))
    assert part.train_x.shape[1] == 6 and {*part.train_y} == {1} and not part.train_x[:, 1].any()


@pytest.mark.parametrize(
    "frame, message",
    [
        (CARS.replace("audi", "saab"), "the label 'saab' is not in the training data, which have: audi, bmw"),
        (CARS.replace("gas", "steam"), "table, train split: row .*, column 'fuel': 'steam' is not in"),
        (CARS.drop(columns="doors"), "table: no column 'doors'"),
    ],
)
def test_another_table_that_does_not_fit_is_one_line(frame, message, own):
    with pytest.raises(npt.UserError, match=message):
        matched(own, table(frame))


def test_values_are_matched_by_the_names_of_their_columns():
    own, other = signature_of(table(target="mpg,weight", drop="make")), table(target="weight,mpg", drop="make")
    np.testing.assert_array_equal(matched(own, other).train_y, other.train_y[:, ::-1])
    np.testing.assert_array_equal(matched_targets(own, CARS[["weight", "mpg"]]), CARS[["mpg", "weight"]])
    with pytest.raises(npt.UserError, match="targets: no column 'weight'; there are: mpg"):
        matched_targets(own, CARS[["mpg"]])
    with pytest.raises(npt.UserError, match=r"targets of table are mpg, more; .* trained on mpg, weight"):
        matched(own, table(CARS.assign(more=1.5), target="mpg,more", drop="make"))
    one, renamed = signature_of(table(drop="make", target="mpg")), CARS.rename(columns={"mpg": "miles"})
    assert matched(one, table(renamed, drop="make", target="miles")).train_y.shape == (48, 1)


def test_labels_are_those_of_the_file():
    assert [*signature_of(table()).classes] == ["audi", "bmw"]
    doors, turbo = signature_of(table(target="doors", task="classes")), signature_of(table(target="turbo"))
    assert doors.classes.tolist() == [2, 3, 4, 5] and turbo.classes.tolist() == [False, True]
    assert matched_targets(doors, CARS.doors).tolist() == (CARS.doors - 2).tolist()
    assert matched_targets(turbo, CARS.turbo).tolist() == CARS.turbo.tolist()
    own = signature_of(table())
    for y in (CARS.make, CARS[["make"]].rename(columns=str.upper), CARS):
        assert matched_targets(own, y).tolist() == (CARS.make == "bmw").tolist()
    assert matched_targets(own, np.array([1, 0])).tolist() == [1, 0]  # of labels that are texts: their indices
    with pytest.raises(npt.UserError, match="row 1, column 'doors': '7' is not in the training data, which have: 2"):
        matched_targets(doors, [7, 2])
    plain = signature_of(npt.load_dataset("digits"))
    assert plain.classes.tolist() == [*range(10)] and matched_targets(plain, ["3", "9"]).tolist() == [3, 9]
    with pytest.raises(npt.UserError, match="row 1, column 'y': 'cat' is not in"):
        matched_targets(plain, ["cat"])


def test_characters_of_another_text_are_matched(tmp_path):
    (tmp_path / "a.txt").write_text("abcab" * 40)
    (tmp_path / "b.txt").write_text("bbbca" * 40)
    (tmp_path / "c.txt").write_text("abcd" * 40)
    a, b, c = (npt.load_dataset(f"text(path='{name}.txt', window=8)") for name in "abc")
    found, own = matched(signature_of(a), b), signature_of(a)
    assert "".join(own.classes[found.train_x.ravel()]) == "".join(np.array(b.names)[b.train_x.ravel()])
    assert "".join(own.classes[found.train_y.ravel()]) == "".join(np.array(b.names)[b.train_y.ravel()])
    with pytest.raises(npt.UserError, match="label 'd' is not in"):
        matched(own, c)


def test_data_frames_are_a_data_set_with_named_columns():
    y = (CARS.make == "bmw").astype(int)
    data = npt.make_dataset(CARS[INPUTS][:40], y[:40], CARS[INPUTS[::-1]][40:], y[40:])
    np.testing.assert_array_equal(data.test_x, expected(CARS[40:]))
    assert [c.name for c in data.columns.inputs] == INPUTS
    run = npt.Run(dataset=(CARS[INPUTS], y))
    assert npt.Run(dataset=(CARS[INPUTS], y)).dataset == run.dataset  # equal data have one name
    pixels = pd.DataFrame(np.arange(8, dtype=np.uint8).reshape(4, 2))
    assert npt.make_dataset(pixels, [0, 1, 0, 1], pixels, [0, 1, 0, 1]).train_x.dtype == np.uint8


MAKE = CARS.make


@pytest.mark.parametrize("labels", [MAKE, [*MAKE], MAKE.astype("category"), MAKE.astype("string"), MAKE.to_frame()])
def test_labels_that_are_texts_are_classes(labels):
    data = dataset_of((CARS[INPUTS], labels))
    whole = npt.make_dataset(CARS[INPUTS], labels, CARS[INPUTS], labels, task="classes")
    assert data.names == whole.names == ("audi", "bmw") and whole.test_y.tolist() == (CARS.make == "bmw").tolist()
    weights = np.concatenate([data.train_x[:, 0], data.test_x[:, 0]])
    codes = np.concatenate([data.train_y, data.test_y])[np.argsort(weights)]
    assert codes.tolist() == (CARS.make == "bmw")[np.argsort(CARS.weight)].tolist()
    flags = signature_of(dataset_of((CARS[["weight"]].to_numpy(), CARS.turbo)))
    assert flags.classes.tolist() == [False, True]
    assert matched_targets(flags, CARS.turbo).tolist() == CARS.turbo.tolist()


GIVEN = CARS[INPUTS]
PARTS = GIVEN[:40], MAKE[:40], GIVEN[40:], MAKE[40:]
NAN = np.where(np.arange(N) == 7, np.nan, CARS.weight)
WRONG = {
    "gap": ((cell("weight", 7, None)[INPUTS], MAKE), "'own': an empty cell in row 8, column 'weight'"),
    "text": ((cell("weight", 7, "x")[INPUTS], MAKE), "'own': column 'weight' has numbers, but 'x' in row 8"),
    "nan": ((NAN[:, None], MAKE), "given inputs contain nan or inf, or are too large for float32: example 7"),
    "target": ((GIVEN, NAN), "given targets contain nan or inf: example 7"),
    "label": ((GIVEN, MAKE.where(CARS.index != 7)), "the label in row 8 is nan, and others are texts"),
    "size": ((GIVEN, MAKE[:9]), "got shapes (60, 4) and (9,)"),
    "index": ((GIVEN, MAKE[::-1]), "row 1 has the index 0 in x and 59 in y; give y.loc[x.index], or y.to_numpy()"),
    "twice": ((pd.concat([GIVEN, CARS[["weight"]]], axis=1), MAKE), "column 'weight' occurs twice"),
    "train gap": ((GIVEN[:40].mask(CARS.doors > 0), *PARTS[1:]), "train split: an empty cell in row 1"),
    "test text": (
        (*PARTS[:2], GIVEN[40:].assign(fuel="steam"), MAKE[40:]),
        "test split: row 1, column 'fuel': 'steam'",
    ),
    "test label": ((*PARTS[:3], ["bmw", "vw"] * 10), "test split: row 2, column 'y': 'vw' is not in the training data"),
    "test index": ((*PARTS[:3], MAKE[:20]), "test split: row 1 has the index 40 in x and 0 in y"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_data_that_are_given_is_one_line_with_their_rows(name):
    given, says = WRONG[name]
    with pytest.raises(npt.DataError, match=re.escape(says)) as error:
        dataset_of(given)
    assert "\n" not in str(error.value)


def test_the_classes_that_are_given_are_as_many_as_the_labels():
    with pytest.raises(npt.DataError, match="classes=7, but the targets have 2 labels: audi, bmw"):
        npt.make_dataset(*PARTS, classes=7)


def test_texts_of_a_column_of_flags_are_flags(own):
    np.testing.assert_allclose(own.inputs(CARS.assign(turbo=CARS.turbo.astype(str))), expected(), rtol=1e-6)
    with pytest.raises(npt.DataError, match="row 1, column 'turbo': 'yes' is not True or False"):
        own.inputs(CARS.assign(turbo="yes"))


def test_na_and_none_are_texts_among_texts_and_empty_cells_among_numbers(tmp_path):
    frame = CARS.assign(fuel=CARS.fuel.replace({"gas": "NA", "diesel": "None"}))
    data = table(frame)
    assert data.columns.inputs[1].texts == ("NA", "None", "petrol")
    assert read_examples(tmp_path / "cars.csv", data.train_x.shape[1:], data.columns)[0].shape == (N, 6)
    with pytest.raises(npt.DataError, match=r"an empty cell in row 4, column 'weight' \(1 in all\)"):
        table(cell("weight", 3, "NA"))


def test_a_data_frame_without_names_is_taken_by_position(own):
    np.testing.assert_allclose(own.inputs(pd.DataFrame(expected())), expected())
    with pytest.raises(npt.DataError, match="no column 'weight'; there are: 0, 1"):
        own.inputs(pd.DataFrame(expected()[:, :2]))


def test_a_file_of_texts_without_a_heading_is_said_to_have_none(own, tmp_path):
    CARS[INPUTS].to_csv("new.csv", index=False, header=False)
    with pytest.raises(npt.DataError, match="the first row looks like data: add a heading"):
        read_examples(tmp_path / "new.csv", own.shape, own.columns)


def test_an_index_among_the_inputs_is_remarked(caplog):
    CARS.to_csv("cars.csv")
    npt.load_dataset("table(path='cars.csv', target=make)")
    assert "a column without a name (an index?) is an input; to leave it out give drop='Unnamed: 0'" in caplog.text


def test_a_corrupt_record_of_columns_is_refused(own):
    record = own.to_json()
    for wrong in ({"inputs": []}, {"inputs": [], "targets": []}, {"inputs": [{"name": "a", "kind": "?", "texts": []}],
                  "targets": []}, 3):  # fmt: skip
        with pytest.raises((KeyError, TypeError, ValueError)):
            from_json(record | {"columns": wrong})
    del record["columns"]  # as earlier versions wrote it
    assert from_json(record).columns is None and schema.from_json(own.columns.to_json()) == own.columns
