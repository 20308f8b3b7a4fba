# Trains an image classifier for some epochs, starting from the weights that are sent.
#
# Reads     the `train` split of the approved dataset: images and labels.
# Computes  stochastic gradient descent on the cross-entropy of a model of `build_model`.
# Leaves    weights   the trained parameters, names and shapes as the model's
#           loss      mean cross-entropy over the last epoch, as seen while training
#           accuracy  share of images classified correctly over the last epoch
#           steps     steps of the optimizer
#           examples  the number of images in the split
# Arguments `defaults` has them all. The order of images and their augmentation follow from `seed`
#           and `round`. `correction.NAME`, where it is sent, is added to the gradient of NAME;
#           `proximal` pulls towards the weights that were sent.


def train(data, weights, config):
    import numpy as np
    import torch

    config = {**defaults(), **config}
    images, labels = data.arrays("train")
    model = build_model(data.card, config)
    sent = {name: torch.from_numpy(array) for name, array in weights.items()}
    model.load_state_dict({name: sent[name] for name in model.state_dict()})
    model.train()
    optimizer = build_optimizer(model, config)
    balance = class_weights(labels, len(data.card["classes"]), config)
    order = np.random.default_rng([config["seed"], config["round"], len(labels)])
    steps = 0
    for _ in range(config["epochs"]):
        total_loss, correct = 0.0, 0
        batches = -(-len(labels) // config["batch_size"])
        for indices in np.array_split(order.permutation(len(labels)), batches):
            batch = np.sort(indices)
            x = augment(to_input(images[batch], config), config["augmentation"], order)
            y = torch.from_numpy(labels[batch])
            optimizer.zero_grad()
            scores = model(x)
            loss = torch.nn.functional.cross_entropy(scores, y, weight=balance)
            loss.backward()
            adjust(model, sent, config["proximal"])
            optimizer.step()
            steps += 1
            total_loss += loss.item() * len(batch)
            correct += int((scores.argmax(1) == y).sum())
    return {
        "weights": {name: tensor.numpy() for name, tensor in model.state_dict().items()},
        "metrics": {
            "loss": total_loss / len(labels),
            "accuracy": correct / len(labels),
            "steps": steps,
        },
        "examples": len(labels),
    }


def defaults():
    return {
        "model": "small_cnn",  # or mobilenet_v2, resnet18, densenet121
        "normalisation": "group",  # or batch
        "size": 0,  # images are resized to so many pixels; 0: as they are
        "optimizer": "sgd",  # or adam, adamw
        "learning_rate": 0.05,
        "momentum": 0.9,  # of sgd
        "weight_decay": 0.0,
        "batch_size": 32,
        "epochs": 1,
        "class_weights": "none",  # or balanced
        "augmentation": 0.0,  # 1: turned by 15 degrees, moved and zoomed by a tenth, 30 % brighter
        "proximal": 0.0,
        "seed": 0,
        "round": 0,
    }


def initial_weights(card, config):
    import torch

    config = {**defaults(), **config}
    torch.manual_seed(config["seed"])
    model = build_model(card, config)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def build_optimizer(model, config):
    import torch

    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    settings = {"lr": config["learning_rate"], "weight_decay": config["weight_decay"]}
    settings |= {"momentum": config["momentum"]} if config["optimizer"] == "sgd" else {}
    return kinds[config["optimizer"]](model.parameters(), **settings)


def class_weights(labels, classes, config):
    import numpy as np
    import torch

    if not {"none": False, "balanced": True}[config["class_weights"]]:
        return None
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy((len(labels) / (classes * counts.clip(1))).astype(np.float32))


def adjust(model, sent, proximal):
    for name, parameter in model.named_parameters():
        if proximal:
            parameter.grad.add_(parameter.detach() - sent[name], alpha=proximal)
        if "correction." + name in sent:
            parameter.grad.add_(sent["correction." + name])


def augment(x, strength, order):
    import numpy as np
    import torch

    if not strength:
        return x
    draw = order.uniform(-strength, strength, (6, len(x))).astype(np.float32)
    turn, zoom = draw[0] * (np.pi / 12), 1 + 0.1 * draw[1]
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    matrix = np.stack([cos, -sin, 0.2 * draw[2], sin, cos, 0.2 * draw[3]], 1).reshape(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(torch.from_numpy(matrix), x.shape, False)
    x = torch.nn.functional.grid_sample(x, grid, "bilinear", "border", False)
    contrast, light = torch.from_numpy(draw[4:]).reshape(2, -1, 1, 1, 1) * 0.3
    return x * (1 + contrast) + light


def build_model(card, config):
    from torch import nn
    from torchvision.models import densenet121, mobilenet_v2, resnet18

    builders = {"small_cnn": small_cnn, "mobilenet_v2": mobilenet_v2}
    builders |= {"resnet18": resnet18, "densenet121": densenet121}
    model = builders[config["model"]](num_classes=len(card["classes"]))
    if {"group": True, "batch": False}[config["normalisation"]]:
        for name, layer in list(model.named_modules()):
            if isinstance(layer, nn.BatchNorm2d):
                model.set_submodule(name, nn.GroupNorm(8, layer.num_features))
    return model


def small_cnn(num_classes):
    from torch import nn

    layers, before = [], 3
    for after, pooling in ((16, True), (64, True), (128, False), (96, False)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooling else []
        before = after
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes)]
    return nn.Sequential(*layers)


def to_input(images, config):
    import numpy as np
    import torch

    if images.ndim == 3:
        images = images[..., None]
    x = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    half = 127.5 if images.dtype == np.uint8 else 0.5  # floats are 0 to 1
    x = (torch.from_numpy(x) / half - 1.0).expand(-1, 3, -1, -1)
    if config["size"]:
        x = torch.nn.functional.interpolate(x, (config["size"],) * 2, mode="bilinear")
    return x
