"""Data sets, as arrays on the host: found on this machine, checked, and downloaded only where need be.

`load_dataset("mnist")` is all that most callers use. A set is one function (images.py) and one registry line.
"""

from nodepert.data.dataset import DataError, DataNotFound, Dataset, load_dataset, make_dataset
from nodepert.data.files import status

__all__ = ["DataError", "DataNotFound", "Dataset", "load_dataset", "make_dataset", "status"]
