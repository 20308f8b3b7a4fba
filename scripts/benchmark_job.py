# Trains the CNN of 420,610 parameters that every speed figure is about.
#
# Reads     the `train` split of the approved dataset: images and labels.
# Computes  stochastic gradient descent with momentum on the cross-entropy of a small CNN.
# Leaves    weights   the trained parameters, names and shapes as sent
#           loss      mean cross-entropy over the last epoch, as seen while training
#           accuracy  share of images classified correctly over the last epoch
#           examples  the number of images in the split
# Arguments learning_rate, momentum, epochs, batch_size; seed and round: the order of images, the
#           same for the same numbers.


def train(data, weights, config):
    import numpy as np
    import torch

    images, labels = data.arrays("train")
    model = build_model(data.card)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model.train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config["learning_rate"], momentum=config["momentum"]
    )
    order = np.random.default_rng([config["seed"], config["round"], len(labels)])
    inputs, targets = to_input(images), torch.from_numpy(np.array(labels))
    for _ in range(config["epochs"]):
        total_loss, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        indices = order.permutation(len(labels))
        for start in range(0, len(indices), config["batch_size"]):
            batch = torch.from_numpy(np.sort(indices[start : start + config["batch_size"]]))
            y = targets[batch]
            optimizer.zero_grad()
            scores = model(inputs[batch])
            loss = torch.nn.functional.cross_entropy(scores, y)
            loss.backward()
            optimizer.step()
            total_loss += loss.detach() * len(batch)
            correct += (scores.argmax(1) == y).sum()
    return {
        "weights": {name: tensor.numpy() for name, tensor in model.state_dict().items()},
        "metrics": {
            "loss": total_loss.item() / len(labels),
            "accuracy": correct.item() / len(labels),
        },
        "examples": len(labels),
    }


def initial_weights(card, seed):
    import torch

    torch.manual_seed(seed)
    model = build_model(card)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def build_model(card):
    from torch import nn

    height, width = card["shape"][:2]
    channels = card["shape"][2] if len(card["shape"]) == 3 else 1
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, len(card["classes"])),
    )


def to_input(images):
    import numpy as np
    import torch

    if images.ndim == 3:
        images = images[..., None]
    x = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    half = 127.5 if images.dtype == np.uint8 else 0.5  # floats are 0 to 1
    return torch.from_numpy(x) / half - 1.0
