"""The summary of a network: shapes, parameters, perturbed units, multiplications."""

import pytest

import nodepert as npt
from nodepert.cli import app as cli


def test_numbers_of_a_convolutional_network(capsys):
    """3x3 convolutions of 32 channels on 32x32x3 images, the second and third with a stride."""
    found = npt.summary(npt.Run(dataset="cifar10", network="conv"))
    assert [node.name for node in found.nodes] == ["conv0", "conv1", "conv2", "out"]
    first, last = found.nodes[0], found.nodes[-1]
    assert first == ("conv0", (32, 32, 32), 27 * 32 + 32, 32**3, 32**3 * 27)
    assert last.parameters == last.multiplications + 10 == 16 * 16 * 32 * 10 + 10
    assert found.units == sum(node.units for node in found.nodes) == 49_162
    assert found.parameters == sum(node.parameters for node in found.nodes)
    assert found.multiplications == sum(node.multiplications for node in found.nodes)
    cli.main(["summary", "--network", "conv", "--dataset", "cifar10"])
    assert capsys.readouterr().out == f"{found}\n" and "49,162" in str(found)


def test_a_model_needs_the_shape_of_an_input():
    model = npt.make_model("linfc(depth=0)", (4,), 3)
    assert npt.summary(model, (4,)).multiplications == 12
    assert npt.summary(lambda shape, outputs: npt.make_model("linfc(depth=0)", shape, outputs), (4,), 3).units == 3
    with pytest.raises(npt.UserError, match=r"needs the shape of one input"):
        npt.summary(model)
