"""Data sets: what is read is what was written, and what is wrong is refused in one line that names the file."""

import gzip
import hashlib
import http.server
import io
import os
import pickle
import re
import struct
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nodepert as npt
from nodepert import registry
from nodepert.data import DataError, dataset, download, files, formats, load_dataset, statistics
from nodepert.data.stored import all_stored
from nodepert.errors import UserError
from nodepert.registry.table import OWN

REAL = os.environ.get(files.VARIABLE)  # read before the fixture hides it
MNIST_FILES = [f"{name}.gz" for name in formats.IDX_FILES]


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No test sees this machine's data, cache or network."""
    monkeypatch.delenv(files.VARIABLE, raising=False)
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(files, "DEBIAN", tmp_path / "debian" / "fashion-mnist")
    monkeypatch.setattr(download, "_retrieve", lambda *_: "no connection to example.org")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def idx(array):
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, seed=0, n=(6, 4), packed=True):
    """Four small IDX files; returns their images and labels."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = []
    for split, count in zip(formats.IDX_SPLITS, n, strict=True):
        pair = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        for kind, array in zip((formats.IDX_IMAGES, formats.IDX_LABELS), pair, strict=True):
            write(folder / kind.format(split), idx(array), packed)
        arrays += [pair[0][..., None], pair[1]]
    return arrays


def write(path, content, packed):
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def cifar_blobs(layout, skip, classes, n=3):
    """Small binary CIFAR files, and for each its images (n, 32, 32, 3) and labels."""
    rng = np.random.default_rng(0)
    blobs, wanted = {}, {}
    for name in layout:
        x, y = rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(0, classes, n, np.uint8)
        planes = [x[..., c].reshape(n, -1) for c in range(3)]
        blobs[name] = np.concatenate([np.full((n, skip), 7, np.uint8), y[:, None], *planes], axis=1).tobytes()
        wanted[name] = x, y
    return blobs, wanted


def tar(path, folder, blobs, mode="w:gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, blob in {"readme.html": b"hello", **blobs}.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(blob)
            archive.addfile(info, io.BytesIO(blob))


def jpeg(value, size=(64, 64), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, "JPEG")
    return buffer.getvalue()


def tiny_files(wnids=("n00000002", "n00000001"), n=2):
    """The files of a small Tiny ImageNet of single-coloured images, one of them grey."""
    content = {"wnids.txt": "\n".join(wnids).encode()}
    lines = []
    for c, wnid in enumerate(wnids):
        for i in range(n):
            content[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg((80 * c, 10 * i, 200))
        content[f"val/images/val_{c}.JPEG"] = jpeg(90 + c, mode="L")
        lines.append(f"val_{c}.JPEG\t{wnid}\t0\t0\t62\t62")
    content["val/val_annotations.txt"] = "\n".join(lines).encode()
    return content


def write_tree(folder, content):
    for name, blob in content.items():
        write(folder / name, blob, packed=False)


def refusal(spec, data_dir, *parts):
    """The message with which a set is refused: one line that holds all of `parts`."""
    with pytest.raises(DataError) as caught:
        load_dataset(spec, str(data_dir))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message, message
    return message


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fmnist"])
def test_idx_exactly(tmp_path, name, packed):
    wanted = write_mnist(tmp_path / name, packed=packed)
    data = load_dataset(name, str(tmp_path))
    for got, want in zip(data[1:5], wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    assert (data.name, data.classes, data.source) == (name, 10, str(tmp_path / name))
    assert data.train_x.dtype == np.uint8 and data.train_y.dtype == data.test_y.dtype == np.int32


@pytest.mark.parametrize("form", ["plain", "gz", "tar.gz", "tar"])
@pytest.mark.parametrize(("name", "skip", "classes"), [("cifar10", 0, 10), ("cifar100", 1, 100)])
def test_cifar_exactly(tmp_path, name, skip, classes, form):
    layout = all_stored()[name]
    blobs, wanted = cifar_blobs(layout.files, skip, classes)
    if form.startswith("tar"):
        archive = tmp_path / layout.archive.removesuffix("" if form == "tar.gz" else ".gz")
        tar(archive, "some-folder", blobs, "w:gz" if form == "tar.gz" else "w")
    else:
        for file, blob in blobs.items():
            write(tmp_path / layout.folders[0] / file, blob, packed=form == "gz")
    data = load_dataset(name, str(tmp_path))
    *train, test = wanted.values()
    np.testing.assert_array_equal(data.train_x, np.concatenate([x for x, _ in train]))
    np.testing.assert_array_equal(data.train_y, np.concatenate([y for _, y in train]))
    np.testing.assert_array_equal(data.test_x, test[0])
    np.testing.assert_array_equal(data.test_y, test[1])
    assert data.classes == classes and data.mean.shape == data.std.shape == (3,)


@pytest.mark.parametrize("zipped", [False, True])
def test_tiny_imagenet(tmp_path, zipped):
    if zipped:
        with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "w") as archive:
            for name, blob in tiny_files().items():
                archive.writestr(f"tiny-imagenet-200/{name}", blob)
    else:
        write_tree(tmp_path / "tiny-imagenet-200", tiny_files())
    data = load_dataset("tiny-imagenet", str(tmp_path))
    assert data.train_x.shape == (4, 64, 64, 3) and data.classes == 2
    assert data.train_y.tolist() == [0, 1, 0, 1] and data.test_y.tolist() == [0, 1]  # in the order of wnids.txt
    colours = np.array([[0, 0, 200], [80, 0, 200], [0, 10, 200], [80, 10, 200]])
    assert abs(data.train_x - colours[:, None, None]).max() < 4  # JPEG is not exact
    assert abs(data.test_x - np.array([90, 91])[:, None, None, None]).max() < 3
    assert len(load_dataset("tiny-imagenet(train=3, test=1)", str(tmp_path)).train_y) == 3
    with pytest.raises(UserError, match=r"train=5 is not in 0\.\.4, the number of train inputs"):
        load_dataset("tiny-imagenet(train=5)", str(tmp_path))


BROKEN_TINY = {
    "not an image": ("train/n00000001/images/n00000001_1.JPEG", b"text", "corrupt"),
    "truncated": ("train/n00000001/images/n00000001_1.JPEG", jpeg(0)[:-300], "corrupt"),
    "other size": ("val/images/val_0.JPEG", jpeg(0, (65, 64)), "65x64"),
    "huge": ("val/images/val_0.JPEG", bytes(2 << 20), "larger than"),
    "lost image": ("train/n00000001/images/n00000001_1.JPEG", None, "incomplete"),
    "lost test image": ("val/images/val_1.JPEG", None, "missing"),
    "lost list": ("val/val_annotations.txt", None, "missing: val/val_annotations.txt"),
    "wrong list": ("wnids.txt", b"../../etc\n", "not the list of classes"),
    "unknown class": ("val/val_annotations.txt", b"val_0.JPEG\tn00000009\n", "line 1"),
    "path in list": ("val/val_annotations.txt", b"../val_0.JPEG\tn00000001\n", "line 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_TINY)
def test_tiny_imagenet_refused(tmp_path, case):
    name, blob, says = BROKEN_TINY[case]
    content = tiny_files() | {name: blob}
    write_tree(tmp_path / "tiny-imagenet", {k: v for k, v in content.items() if v is not None})
    refusal("tiny-imagenet", tmp_path, tmp_path / "tiny-imagenet", says)


def flipped(blob, at):
    return blob[:at] + bytes([blob[at] ^ 0x55]) + blob[at + 1 :]


IMAGES = idx(np.arange(6 * 784, dtype=np.uint32).astype(np.uint8).reshape(6, 28, 28))
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
BROKEN_IDX = {
    "empty": (b"", "it is empty"),
    "text": (b"this is no data set\n", "not an IDX file of images"),
    "png": (PNG, "not an IDX file of images"),
    "labels": (idx(np.zeros(6, np.uint8)), "not an IDX file of images"),
    "header": (IMAGES[:9], "truncated"),
    "truncated": (IMAGES[:-1], "truncated"),
    "truncated gz": (gzip.compress(IMAGES)[:-20], "truncated"),
    "too long": (IMAGES + b"\0", "it is longer than the"),
    "flipped gz": (flipped(gzip.compress(IMAGES), 40), "corrupt"),
    "flipped checksum": (flipped(gzip.compress(IMAGES), -6), "corrupt"),
    "flipped gz magic": (flipped(gzip.compress(IMAGES), 0), "not an IDX file of images"),
    "bomb": (gzip.compress(IMAGES + bytes(30 << 20)), "it is longer than the"),
    "bomb header": (gzip.compress(struct.pack(">4I", 0x803, 2**32 - 1, 28, 28)), "its header gives 4,294,967,295"),
    "other size": (idx(np.zeros((6, 27, 28), np.uint8)), "27x28"),
    "count": (idx(np.zeros((5, 28, 28), np.uint8)), "6 labels for the 5 images"),
    "none": (idx(np.zeros((0, 28, 28), np.uint8)), "6 labels for the 0 images"),
}


@pytest.mark.parametrize("case", BROKEN_IDX)
def test_idx_refused(tmp_path, case):
    blob, says = BROKEN_IDX[case]
    write_mnist(tmp_path / "mnist")
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(blob)
    refusal("mnist", tmp_path, path.parent, "train-images", says)


def test_labels_out_of_range(tmp_path):
    write_mnist(tmp_path / "mnist")
    path = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.array([1, 2, 10, 3], np.uint8))))
    refusal("mnist", tmp_path, path, "label 10", "0..9")


def test_empty_set(tmp_path):
    write_mnist(tmp_path / "mnist", n=(0, 4))
    refusal("mnist", tmp_path, tmp_path / "mnist", "no train inputs")


@pytest.mark.parametrize(("change", "says"), [
    (lambda b: b[:-1], "not records of 3,073 bytes"),
    (lambda b: PNG, "not binary CIFAR"),
    (lambda b: b"", "not binary CIFAR"),
    (lambda b: b"\x0a" + b[1:], "outside 0..9"),
    (lambda b: b + bytes(3073 * 10_000), "longer than"),
    (lambda b: gzip.compress(b)[:-9], "truncated"),
    (lambda b: flipped(gzip.compress(b), 100), "corrupt"),
])  # fmt: skip
def test_cifar_refused(tmp_path, change, says):
    blobs, _ = cifar_blobs(formats.CIFAR10_FILES, 0, 10)
    folder = tmp_path / "cifar-10-batches-bin"
    write_tree(folder, blobs | {"data_batch_3.bin": change(blobs["data_batch_3.bin"])})
    refusal("cifar10", tmp_path, folder / "data_batch_3.bin", says)


def test_cifar_cut_between_records(tmp_path):
    """Half of a file is still whole records; only the complete files beside it show the damage."""
    blobs, _ = cifar_blobs(formats.CIFAR10_FILES, 0, 10)
    full = bytes(3073 * 10_000)
    write_tree(tmp_path / "cifar10", dict.fromkeys(blobs, full) | {"test_batch.bin": full[: len(full) // 2]})
    refusal("cifar10", tmp_path, tmp_path / "cifar10" / "test_batch.bin", "contains 5,000 records of 10,000")


@pytest.mark.parametrize(("change", "says"), [
    (lambda b: b[: len(b) // 2], "truncated"),
    (lambda b: b[:-4], "truncated"),
    (lambda b: flipped(b, len(b) // 2), "corrupt"),
    (lambda b: flipped(b, -6), "corrupt"),
    (lambda b: b"<html>not found</html>", "corrupt"),
])  # fmt: skip
def test_archive_refused(tmp_path, change, says):
    path = tmp_path / "cifar-10-binary.tar.gz"
    tar(path, "cifar-10-batches-bin", cifar_blobs(formats.CIFAR10_FILES, 0, 10)[0])
    path.write_bytes(change(path.read_bytes()))
    refusal("cifar10", tmp_path, path, says)


def test_archive_of_something_else(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    tar(path, "x", {"train.bin": b"1"})
    refusal("cifar10", tmp_path, path, "it does not contain data_batch_1.bin")
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(b"PK, but no more")
    refusal("tiny-imagenet", tmp_path, tmp_path / "tiny-imagenet-200.zip", "not a zip archive")


class Trap:
    def __reduce__(self):
        return open, (os.environ["TRAP"], "w")


@pytest.mark.parametrize(("name", "folder", "file"), [
    ("cifar10", "cifar-10-batches-py", "data_batch_1"),
    ("cifar10", "cifar10", "batches.meta"),
    ("cifar10", "", "cifar-10-python.tar.gz"),
    ("cifar100", "cifar-100-python", "train"),
    ("cifar100", "cifar100", "meta"),
])  # fmt: skip
def test_pickles_are_refused_unread(tmp_path, monkeypatch, name, folder, file):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    write(tmp_path / folder / file, pickle.dumps(Trap()), packed=False)
    refusal(
        name,
        tmp_path,
        tmp_path,
        "loading a pickle can run any code",
        f"{name.replace('cifar', 'cifar-')}-binary.tar.gz",
    )
    refusal(name, tmp_path / folder, "loading a pickle can run any code")
    assert not (tmp_path / "sprung").exists()


def test_mnist_and_fashion_cannot_be_confused(tmp_path):
    write_mnist(tmp_path / "data")  # the four files right in a folder that could be either's
    for name in ("mnist", "fmnist"):
        refusal(name, tmp_path / "data", f"no {name} in {tmp_path / 'data'}")
    digits, clothes = write_mnist(tmp_path / "mnist", 1), write_mnist(tmp_path / "FashionMNIST" / "raw", 2)
    for data_dir in (tmp_path, tmp_path / "mnist"):
        assert (load_dataset("mnist", str(data_dir)).train_x == digits[0]).all()
    for data_dir in (tmp_path, tmp_path / "FashionMNIST" / "raw"):
        assert (load_dataset("fmnist", str(data_dir)).train_x == clothes[0]).all()
    refusal("fmnist", tmp_path / "mnist", "no fmnist")
    refusal("mnist", tmp_path / "FashionMNIST" / "raw", "no mnist")


def test_order_of_the_search(tmp_path, monkeypatch, capsys):
    asked = tmp_path / "asked"
    asked.mkdir()
    with pytest.raises(DataError):
        load_dataset("fmnist")
    write_mnist(files.DEBIAN)
    assert load_dataset("fmnist").source == str(files.DEBIAN)
    refusal("mnist", asked, "no mnist")  # Debian's folder is for Fashion-MNIST alone
    write_mnist(tmp_path / "cache" / "fmnist")
    assert load_dataset("fmnist").source == str(tmp_path / "cache" / "fmnist")
    assert capsys.readouterr().err == ""
    assert load_dataset("fmnist", str(asked)).source == str(tmp_path / "cache" / "fmnist")
    note = f"nodepert: note: no fmnist in {asked}; using {tmp_path / 'cache' / 'fmnist'}\n"
    assert capsys.readouterr().err == note
    monkeypatch.setenv(files.VARIABLE, str(asked))
    write_mnist(asked / "fashion-mnist")
    assert load_dataset("fmnist").source == str(asked / "fashion-mnist")
    write_mnist(tmp_path / "other" / "fmnist")
    assert load_dataset("fmnist", str(tmp_path / "other")).source == str(tmp_path / "other" / "fmnist")
    assert capsys.readouterr().err == ""


def test_data_folder_must_exist(tmp_path, monkeypatch):
    write_mnist(tmp_path / "cache" / "mnist")
    refusal("mnist", tmp_path / "nowhere", tmp_path / "nowhere", "does not exist")
    (tmp_path / "file").touch()
    refusal("mnist", tmp_path / "file", tmp_path / "file", "is not a folder")
    monkeypatch.setenv(files.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=files.VARIABLE):
        load_dataset("mnist")


def test_incomplete_set(tmp_path):
    write_mnist(tmp_path / "cache" / "mnist")
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    refusal("mnist", tmp_path, tmp_path / "mnist", "missing: t10k-labels-idx1-ubyte")
    blobs, _ = cifar_blobs(formats.CIFAR10_FILES, 0, 10)
    del blobs["data_batch_2.bin"]
    write_tree(tmp_path / "cifar10", blobs)
    refusal("cifar10", tmp_path, tmp_path / "cifar10", "missing: data_batch_2.bin")


def test_not_found(tmp_path):
    message = refusal("mnist", tmp_path, f"no mnist in {tmp_path} or {tmp_path / 'cache'}; cannot download mnist: ")
    remedy = f"into {tmp_path}/mnist and give --data-dir {tmp_path} (or set NODEPERT_DATA_DIR), or run "
    assert remedy + "'nodepert data fetch mnist'" in message
    assert message.count("example.org") == 2  # both mirrors
    assert os.listdir(tmp_path) == []


def test_status(tmp_path):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "fmnist").mkdir()
    (tmp_path / "fmnist" / "t10k-labels-idx1-ubyte").touch()
    rows = {name: (found, where) for name, found, where in files.status(str(tmp_path))}
    assert list(rows) == registry.names("dataset")
    assert rows["mnist"] == (True, str(tmp_path / "mnist")) and rows["digits"][0]
    assert not rows["fmnist"][0] and "missing" in rows["fmnist"][1]
    assert rows["cifar10"] == (False, "not found; nodepert data fetch cifar10")


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mirror, file = self.path.strip("/").split("/")
        blob = self.server.mirrors.get(mirror, {}).get(file)  # pyright: ignore[reportAttributeAccessIssue]
        if blob is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(blob) + (10 if mirror == "interrupted" else 0)))
        self.end_headers()
        return self.wfile.write(blob)

    def log_message(self, *_):
        pass


RETRIEVE = download._retrieve


@contextmanager
def served(monkeypatch, tmp_path, *mirrors, wrong=False):
    """A server of one small MNIST under several mirrors, put in the place of the real ones."""
    write_mnist(tmp_path / "server")
    blobs = {name: (tmp_path / "server" / name).read_bytes() for name in MNIST_FILES}
    md5 = tuple(hashlib.md5(b"other" if wrong else blob).hexdigest() for blob in blobs.values())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.mirrors = {"whole": blobs, "interrupted": blobs, "some": dict(list(blobs.items())[:2])}  # pyright: ignore
    bases = tuple(f"http://127.0.0.1:{server.server_port}/{mirror}/" for mirror in mirrors)
    monkeypatch.setitem(all_stored(), "mnist", all_stored()["mnist"]._replace(mirrors=bases, md5=md5))
    monkeypatch.setattr(download, "_retrieve", RETRIEVE)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("mirrors", [["whole"], ["gone", "whole"], ["interrupted", "whole"], ["some", "whole"]])
def test_download(tmp_path, monkeypatch, capfd, mirrors):
    with served(monkeypatch, tmp_path, *mirrors):
        data = load_dataset("mnist")
    place = tmp_path / "cache" / "mnist"
    assert data.source == str(place) and sorted(os.listdir(place)) == sorted(MNIST_FILES)
    assert os.listdir(tmp_path / "cache") == ["mnist"]
    assert capfd.readouterr().err == f"nodepert: note: downloaded mnist to {place}\n"
    assert download.fetch("mnist") == place  # the server is gone: nothing is asked of it again
    assert load_dataset("mnist").train_x.shape == (6, 28, 28, 1)


def test_download_repairs_the_cache(tmp_path, monkeypatch):
    write_mnist(tmp_path / "cache" / "mnist", seed=3)
    with served(monkeypatch, tmp_path, "whole"):
        download.fetch("mnist")
    wanted = write_mnist(tmp_path / "again")
    assert (load_dataset("mnist").train_x == wanted[0]).all()


@pytest.mark.parametrize(("mirrors", "wrong", "says"), [
    (["gone"], False, "127.0.0.1 returned 404 for train-images-idx3-ubyte.gz"),
    (["some"], False, "returned 404"),
    (["interrupted"], False, "the connection to 127.0.0.1 was lost"),
    (["whole"], True, "train-images-idx3-ubyte.gz from 127.0.0.1 has a wrong checksum"),
])  # fmt: skip
def test_failed_download(tmp_path, monkeypatch, capfd, mirrors, wrong, says):
    (tmp_path / "asked").mkdir()
    with served(monkeypatch, tmp_path, *mirrors, wrong=wrong):
        refusal("mnist", tmp_path / "asked", "cannot download mnist: ", says)
    assert not (tmp_path / "cache").exists()
    assert capfd.readouterr() == ("", "")


def test_closed_network(tmp_path, monkeypatch):
    with served(monkeypatch, tmp_path, "whole"):
        pass
    with pytest.raises(DataError, match=r"^cannot download mnist: no connection to 127\.0\.0\.1$"):
        download.fetch("mnist")
    (tmp_path / "cache").touch()
    with pytest.raises(DataError, match=r"cannot write to .*cache: "):
        download.fetch("mnist")
    with pytest.raises(UserError, match="can be downloaded; these are: mnist, fmnist"):
        download.fetch("digits")


def digest(data):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in data[1:5])).hexdigest()[:16]


@pytest.mark.parametrize(("name", "sizes", "per_class", "pinned"), [
    ("mnist5k", (4000, 1000), 100, "92fdb9c5d5aabb9f"),
    ("digits", (1437, 360), 36, "86088a60667b69cf"),
])  # fmt: skip
def test_splits_of_packaged_sets_never_change(name, sizes, per_class, pinned):
    data, again = load_dataset(name), load_dataset(name)
    assert (len(data.train_x), len(data.test_x)) == sizes
    assert digest(data) == digest(again) == pinned
    assert np.bincount(data.test_y).tolist() == [per_class] * 10
    train, test = ({x.tobytes() for x in split} for split in (data.train_x, data.test_x))
    assert not train & test  # no image is there twice
    assert np.bincount(load_dataset(f"{name}(train=500)").train_y).min() >= 30  # the order mixes the classes


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data, (x, y) = load_dataset("digits"), load_digits(return_X_y=True)
    ours = np.column_stack(
        [np.concatenate([data.train_x, data.test_x]).reshape(len(y), -1), [*data.train_y, *data.test_y]]
    )
    theirs = np.column_stack([x, y]).astype(int)
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_subset(tmp_path):
    whole, part = load_dataset("digits"), load_dataset("digits(train=7, test=5)")
    np.testing.assert_array_equal(part.train_x, whole.train_x[:7])
    np.testing.assert_array_equal(part.test_y, whole.test_y[:5])
    assert part.train_x.base is None  # the rest can be freed
    for spec in ("digits(train=1438)", "digits(train=-1)"):
        with pytest.raises(UserError, match=r"is not in 0\.\.1,437, the number of train inputs"):
            load_dataset(spec)
    with pytest.raises(UserError, match=r"is not in 0\.\.360, the number of test inputs"):
        load_dataset("digits(test=361)")


def test_statistics(monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK", 1000)  # several blocks, the last one short
    x = np.random.default_rng(0).integers(0, 256, (17, 5, 6, 3), np.uint8)
    x[..., 1] = 9
    mean, std = statistics.statistics(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std[[0, 2]], x.astype(np.float64).std((0, 1, 2))[[0, 2]], rtol=1e-6)
    assert std[1] == 1 and mean.dtype == std.dtype == np.float32


def test_inconsistent_arrays():
    x, y = np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 1, 2])
    good = dataset.Arrays(x, y, x, y)
    assert dataset.build("a", good, 3, "here").train_y.dtype == np.int32
    wrong = {"train_y": y[:2]}, {"test_x": x[:, :3]}, {"test_y": y + 1}, {"test_y": y - 1}, {"train_x": x[..., 0]}
    for change in wrong:
        with pytest.raises(DataError, match="here: "):
            dataset.build("a", good._replace(**change), 3, "here")


@pytest.mark.skipif(not REAL, reason=f"{files.VARIABLE} is not set")
@pytest.mark.parametrize(("name", "shape", "mean", "std"), [
    ("mnist", (28, 28, 1), [0.1307], [0.3081]),
    ("fmnist", (28, 28, 1), [0.2860], [0.3530]),
    ("cifar10", (32, 32, 3), [0.491, 0.482, 0.447], [0.247, 0.243, 0.262]),
])  # fmt: skip
def test_real_sets(name, shape, mean, std):
    if not {row[0]: row[1] for row in files.status(REAL)}[name]:
        pytest.skip(f"no {name} in {REAL}")
    data = load_dataset(name, REAL)
    train = 50_000 if name == "cifar10" else 60_000
    assert data.train_x.shape == (train, *shape) and data.test_x.shape == (10_000, *shape)
    assert np.bincount(data.test_y).tolist() == [1000] * 10 or name == "mnist"
    np.testing.assert_allclose(data.mean / 255, mean, atol=1e-3 if name == "cifar10" else 1e-4)
    np.testing.assert_allclose(data.std / 255, std, atol=3e-3 if name == "cifar10" else 1e-4)


def test_nothing_heavy_is_imported():
    """Only what a set needs is imported, when it is needed; JAX never."""
    for path in Path(dataset.__file__).parent.glob("*.py"):
        assert not re.search(
            r"^(import|from) (pooch|sklearn|mlxtend|PIL|requests)|\bimport jax", path.read_text(), re.M
        )


# ------------------------------------------------------------------------------------------------ your own arrays


def own(n=20, shape=(3,), dtype="float64", classes=2):
    x = np.random.default_rng(0).normal(5, 2, (n, *shape)).astype(dtype)
    return x, np.arange(n) % classes


def test_numbers_of_any_shape_are_a_data_set_with_the_statistics_of_each_feature():
    x, y = own(20, (4, 3))
    x[..., 2] = 7.0  # constant
    data = npt.make_dataset(x[:15], y[:15], x[15:], y[15:], name="mine")
    assert data.train_x.dtype == np.float32 and data.classes == 2 and data.name == "mine"
    np.testing.assert_allclose(data.mean, x[:15].mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(data.std[:2], x[:15, :, :2].std((0, 1)), rtol=1e-6)
    assert data.std[2] == 1


def test_images_stay_uint8_and_are_as_in_the_built_in_sets():
    known = npt.load_dataset("digits")
    data = npt.make_dataset(known.train_x, known.train_y, known.test_x, known.test_y, name="digits")
    assert data.train_x.dtype == np.uint8 and data.classes == 10
    np.testing.assert_array_equal(data.mean, known.mean)
    run = npt.Run(dataset="digits", network="fc(width=5)", epochs=1)
    same = [[{k: v for k, v in row.items() if k != "epoch_time"} for row in npt.train(run, data=d).rows]
            for d in (known, data)]  # fmt: skip
    assert same[0] == same[1]


def test_whole_numbers_train_as_they_do_as_floats(monkeypatch):
    x, y = own(40)
    one = npt.make_dataset(np.rint(x).astype("int16"), y, np.rint(x).astype("int16"), y)
    other = npt.make_dataset(np.rint(x), y, np.rint(x), y)
    monkeypatch.setitem(OWN, "dataset", {})
    npt.register("dataset", "own", lambda data_dir: one)
    run = npt.Run(dataset="own", network="fc(width=5)", batchsize=10, epochs=2)
    assert npt.train(run).rows[-1]["test_loss"] == npt.train(run, data=other).rows[-1]["test_loss"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train_y": np.zeros(20)}, "training targets are float64 but test targets int64"),
        ({"train_y": np.zeros(19, int)}, "20 train inputs but labels of shape"),
        ({"test_y": -np.ones(20, int)}, "test labels from -1 to -1"),
        ({"train_x": np.zeros(20)}, "train inputs must be numbers (N, ..., C); got float64 (20,)"),
        ({"train_x": np.full((20, 3), np.nan)}, "train inputs contain nan or inf"),
        ({"train_x": np.full((20, 3), 1e300)}, "or are too large for float32"),
        ({"train_x": np.array([["a"] * 3] * 20)}, "must be numbers"),
        ({"train_x": [[1.0], [2.0, 3.0]]}, "must be"),
        ({"test_x": np.zeros((20, 4))}, "training inputs are (3,) but test inputs (4,)"),
        (
            {"train_x": np.zeros((20, 2, 2, 3), "uint8"), "test_x": np.zeros((20, 2, 2, 3))},
            "uint8 but test inputs float",
        ),
        ({"train_x": np.zeros((0, 3)), "train_y": np.zeros(0, int)}, "there are no train inputs"),
    ],
)
def test_inconsistent_arrays_are_an_error_with_the_reason(change, says):
    x, y = own()
    with pytest.raises(npt.DataError, match=re.escape(says)):
        npt.make_dataset(**{"train_x": x, "train_y": y, "test_x": x, "test_y": y} | change)


def test_bytes_of_any_shape_are_inputs_and_a_constant_feature_stays_small():
    x = np.random.default_rng(0).integers(0, 255, (20, 3), dtype=np.uint8)
    data = npt.make_dataset(x, np.arange(20) % 3, x, np.arange(20) % 3)
    assert data.train_x.dtype == np.uint8 and data.std.shape == (3,)
    np.testing.assert_allclose(data.std, x.std(0), rtol=1e-6)
    x = np.random.default_rng(0).normal(size=(997, 3)).astype(np.float32)
    x[:, 1] = 0.1
    data = npt.make_dataset(x, np.arange(997) % 3, x, np.arange(997) % 3)
    assert data.std[1] == 1 and abs(data.standardised(x)).max() < 10


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test_x": np.zeros((20, 2), np.float32)}, "training inputs are (3,) but test inputs (2,)"),
        ({"train_y": np.zeros(20)}, "labels must be whole numbers, as"),
        ({"train_x": np.zeros((20, 3)), "test_x": np.zeros((20, 3))}, "must be uint8 or float32; got float64"),
        ({"mean": np.zeros(2)}, "mean must be 3 numbers"),
        ({"std": np.array([1, 0, 1])}, "std must be 3 numbers, one for each channel or feature, above 0"),
        ({"std": np.array([1, np.nan, 1])}, "std must be 3 numbers"),
        ({"train_x": [[0.0] * 3] * 20}, "train_x must be an array; got list"),
    ],
)
def test_given_data_are_validated_and_not_copied(change, says):
    x, y = own()
    good = npt.make_dataset(x, y, x, y, name="digits")
    assert dataset.sound(good) is good
    with pytest.raises(npt.DataError, match=re.escape(says)):
        npt.train(npt.Run(dataset="digits"), data=good._replace(**change))
    with pytest.raises(npt.DataError, match=r"takes a Dataset, as .*; got str"):
        npt.train(npt.Run(dataset="digits"), data="digits")
