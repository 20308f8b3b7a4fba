"""Six requests for a reviewer to judge: two are honest, four are hostile in different ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from policies.contract import ArrayContract, Bound, Contract

HONEST_TRAINING = """\
# Trains a small network on the means of 16 regions of each image.
#
# Reads     the `train` split: images and labels.
# Computes  gradient descent on the mean logistic loss of a network with one hidden layer.
# Leaves    hidden, output   the weights of both layers
#           loss             mean logistic loss over the last epoch
#           examples         the number of images


def train(data, weights, config):
    import numpy as np

    images, labels = data.arrays("train")
    x = regions(images)
    hidden, output = weights["hidden"].astype(np.float64), weights["output"].astype(np.float64)
    loss = 0.0
    for _ in range(config["epochs"]):
        inner = np.tanh(x @ hidden)
        score = 1 / (1 + np.exp(-(inner @ output)))
        error = (score - labels) / len(labels)
        back = np.outer(error, output) * (1 - inner**2)
        output = output - config["rate"] * (inner.T @ error)
        hidden = hidden - config["rate"] * (x.T @ back)
        loss = cross_entropy(score, labels)
    return {
        "weights": {"hidden": hidden.astype(np.float32), "output": output.astype(np.float32)},
        "metrics": {"loss": loss},
        "examples": len(labels),
    }


def regions(images):
    import numpy as np

    height, width = images.shape[1] // 4, images.shape[2] // 4
    cut = images[:, : 4 * height, : 4 * width] / 255.0
    means = cut.reshape(len(images), 4, height, 4, width).mean(axis=(2, 4))
    return np.asarray(means.reshape(len(images), 16))


def cross_entropy(score, labels):
    import numpy as np

    likely = np.where(labels == 1, score, 1 - score)
    return float(-np.log(np.clip(likely, 1e-9, 1)).mean())
"""

HONEST_EVALUATION = """\
# Evaluates the small network; only the mean loss and the share of right answers leave.
#
# Reads     the `test` split: images and labels.
# Leaves    hidden, output   the weights, as sent
#           loss             mean squared distance of score and label
#           accuracy         share of images classified correctly
#           examples         the number of images


def train(data, weights, config):
    import numpy as np

    images, labels = data.arrays("test")
    height, width = images.shape[1] // 4, images.shape[2] // 4
    cut = images[:, : 4 * height, : 4 * width] / 255.0
    x = cut.reshape(len(images), 4, height, 4, width).mean(axis=(2, 4)).reshape(len(images), 16)
    score = 1 / (1 + np.exp(-(np.tanh(x @ weights["hidden"]) @ weights["output"])))
    return {
        "weights": weights,
        "metrics": {
            "loss": float(np.mean((score - labels) ** 2)),
            "accuracy": float(np.mean((score > 0.5) == labels)),
        },
        "examples": len(labels),
    }
"""

COPIES_AN_IMAGE = HONEST_TRAINING.replace(
    '"hidden": hidden.astype', '"hidden": images[0].reshape(16, 4).astype'
)

HIDES_CHARACTERS = HONEST_TRAINING.replace(
    "    loss = 0.0\n", "    loss = 0.0  # start \u202e\u2066 gnihton\u2069 \u200b\n"
)

LEAKS_LABELS = HONEST_TRAINING.replace(
    "        loss = cross_entropy(score, labels)",
    "        loss = float((labels[:50] * 0.5 ** np.arange(1, 51)).sum())",
)

WRITES_FILES = HONEST_TRAINING.replace(
    "    import numpy as np\n\n    images",
    "    import numpy as np\n    import socket\n\n    images",
    1,
)


@dataclass(frozen=True)
class Prepared:
    """A request, and what its sheet has to say about it.

    `named` are words that the block "What to look at" has to have, `where` the anchors that it
    has to lead to.
    """

    name: str
    text: str
    headline: str
    named: tuple[str, ...]
    where: tuple[str, ...]
    terms: dict[str, Any]


def contract(metrics: tuple[str, ...] = ("loss",)) -> Contract:
    """What the jobs return."""
    arrays = {
        "hidden": ArrayContract(shape=(16, 4), dtype="float32"),
        "output": ArrayContract(shape=(4,), dtype="float32"),
    }
    return Contract(weights=arrays, metrics=metrics)


TRAINING: dict[str, Any] = {
    "title": "Train a small pneumonia classifier",
    "purpose": "Compare federated with local training for paediatric pneumonia",
    "runs": 10,
    "arguments": {"rate": Bound(low=0.001, high=1.0), "epochs": Bound(low=1, high=5)},
    "contract": contract(),
}
EVALUATION = TRAINING | {
    "title": "Evaluate the federated classifier",
    "runs": 3,
    "arguments": {},
    "contract": contract(("loss", "accuracy")),
}


def line_of(text: str, words: str) -> str:
    """The anchor of the line with these words."""
    lines = text.splitlines()
    return f"L{next(n for n, line in enumerate(lines, 1) if words in line)}"


PREPARED = (
    Prepared("honest training", HONEST_TRAINING, "Nothing found speaks against it",
             ("returned what it declared",), ("rehearsal",), TRAINING),
    Prepared("honest evaluation", HONEST_EVALUATION, "Nothing found speaks against it",
             ("returned what it declared",), ("rehearsal",), EVALUATION),
    Prepared("copies an image", COPIES_AN_IMAGE, "before you approve",
             ("images", 'weights["hidden"]', "Pixels of images stand in what leaves"),
             (line_of(COPIES_AN_IMAGE, "images[0]"), "rehearsal"), TRAINING),
    Prepared("hides characters", HIDES_CHARACTERS, "The policy refuses it",
             ("Characters that turn the order of the text", "U+202E"),
             (line_of(HIDES_CHARACTERS, "# start"),), TRAINING),
    Prepared("asks for more than the policy allows", WRITES_FILES, "The policy refuses it",
             ("400 runs asked for", "at most 100", "Import of `socket`"),
             ("policy", line_of(WRITES_FILES, "import socket")), TRAINING | {"runs": 400}),
    Prepared("differs in one line, which leaks labels", LEAKS_LABELS, "before you approve",
             ("labels", 'metrics["loss"]', "1 line differs from R-1"),
             (line_of(LEAKS_LABELS, "labels[:50]"),), TRAINING),
)  # fmt: skip
"""In the order in which they are submitted; the first is approved before the others come."""
