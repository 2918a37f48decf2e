"""Data sets as arrays on the host: found on this machine or downloaded, and checked.

Most callers use `load_dataset("mnist")` alone. A data set is one function (images.py) and one registry line.
"""

from nodepert.data.dataset import DataError, DataNotFound, Dataset, load_dataset
from nodepert.data.files import status
from nodepert.data.own import make_dataset

__all__ = ["DataError", "DataNotFound", "Dataset", "load_dataset", "make_dataset", "status"]
