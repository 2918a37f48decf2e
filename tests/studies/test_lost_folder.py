"""A folder that is deleted while its run is trained."""

import shutil

import pytest

import nodepert as npt

pytestmark = pytest.mark.usefixtures("quickly_compiled")


class Deletes(npt.Callback):
    def on_epoch(self, run, row, state):
        shutil.rmtree("runs", ignore_errors=True)


def test_that_nothing_is_saved_is_said(caplog):
    run = npt.Run(dataset="digits(train=20, test=10)", network="fc(width=3)", batchsize=20, epochs=1)
    assert npt.train(run, name="n", callbacks=[Deletes()]).status == "finished"
    assert ["was deleted, or taken over" in record.getMessage() for record in caplog.records] == [True]
