"""One line in a notebook, updated as runs train; here without a kernel."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from small import RUN

import nodepert as npt
from nodepert.studies import notebook
from nodepert.studies.callbacks import StateOf
from nodepert.studies.notebook import Line

pytestmark = pytest.mark.usefixtures("quickly_compiled")


class Kernel:
    """What IPython.display is under a kernel: the outputs of a cell, each with its updates."""

    def __init__(self):
        self.outputs = []

    def display(self, bundle, raw, display_id):
        assert raw and display_id
        self.outputs.append([bundle["text/plain"]])
        return SimpleNamespace(update=lambda bundle, raw: self.outputs[-1].append(bundle["text/plain"]))


@pytest.fixture
def kernel(monkeypatch):
    kernel = Kernel()
    shell = SimpleNamespace(kernel=None)
    module = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=kernel.display))
    monkeypatch.setitem(sys.modules, "IPython", module)
    return kernel


def test_training_shows_one_line_that_is_updated(kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "EVERY", 0)
    npt.train([RUN, replace(RUN, seed=1)], name="n", out=tmp_path)
    (line,) = kernel.outputs
    assert line[0].startswith("0/2 runs, epoch 1/2, test ") and "s/epoch, about" in line[0]
    assert line[-1] == "2 runs have ended" and len(line) > 2
    npt.train(RUN, name="n", out=tmp_path)  # read back
    assert len(kernel.outputs) == 1


def test_nothing_is_shown_elsewhere(monkeypatch):
    assert notebook.progress([RUN]) == []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert notebook.progress([RUN]) == []


def row(epoch):
    return {"epoch": epoch, "epoch_time": 2.0, "test_acc": 50.0}


def test_it_is_updated_at_most_every_quarter_of_a_second_and_counts_the_time_of_all_runs():
    runs, now, kernel = [replace(RUN, epochs=10, seed=s) for s in (0, 1)], [0.0], Kernel()
    line = Line(runs, kernel.display, lambda: now[0])
    trained = StateOf(lambda: None)  # pyright: ignore
    for epoch in (0, 1, 2):
        line.on_epoch(runs[0], row(epoch), trained)
    assert kernel.outputs == [["0/2 runs, epoch 1/10, test 50.0%, 2 s/epoch, about 38 s left"]]
    now[0] = 0.3
    line.on_epoch(runs[0], row(3), trained)
    assert len(kernel.outputs[0]) == 2


def test_a_failing_display_does_not_end_training():
    def broken(*_, **__):
        raise OSError

    line = Line([RUN], broken)
    line.on_epoch(RUN, row(1), StateOf(lambda: None))  # pyright: ignore
    line.on_end(RUN, "finished")
