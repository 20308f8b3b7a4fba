# Evaluates an image classifier; only counts of images and a few means leave.
#
# Reads     one split of the approved dataset (argument `split`): images and labels. With `by`, an
#           attribute of the card's `groups`, only the images of its value number `group`.
# Computes  for each class (with two: for the second) the log-odds that an image is of it, less
#           those of `operating_point`, cut to -12 .. 12.
# Leaves    scores      for each such class: how many images of other classes, and of it, have a
#                       score in each of `bins` equal bins. Neighbouring bins are merged until a
#                       cell holds at least `minimum_count` images; a merged cell stands at the mean
#                       bin of its images. Scores below and above 0 are merged apart where both have
#                       enough images.
#           classified  with more than two classes: images of each class classified wrongly and
#                       rightly, merged likewise
#           loss        mean cross-entropy
#           accuracy    share of images whose class has the highest score
#           sensitivity, specificity  share of images of the class with a score of 0 or more, and of
#                       the others with a lower one; mean over the classes
#           brier       half the squared distance of probabilities from the truth, mean over images
#           auc         mean over the classes of the area under the ROC curve, ties counting half
#           examples    the number of images counted; a class with too few images is left out. With
#                       `by`, the number of the smallest group, so that a site shows all or none:
#                       no group follows from the others. None is counted where any group, or the
#                       images without a value, have fewer than `minimum_count` of a class.


def evaluate(data, weights, config):
    import numpy as np
    import torch

    defaults = {"model": "small_cnn", "normalisation": "group", "size": 0}
    defaults |= {"operating_point": 0.5, "by": "", "group": 0}
    config = {**defaults, **config}
    images, labels = data.arrays(config["split"])
    classes, minimum = len(data.card["classes"]), config["minimum_count"]
    enough = np.bincount(labels, minlength=classes)[labels] >= minimum
    examples = int(enough.sum())
    if config["by"]:
        places = data.groups(config["split"])[config["by"]]
        enough, examples = of_group(enough, labels, places, config)
    labels = torch.from_numpy(labels[enough])
    probability = predict(images, enough, build_model(data.card, config), weights, config)
    truth = torch.nn.functional.one_hot(labels, classes).double()
    right = (probability.argmax(1) == labels).double()
    tables, areas, rates = [], [], []
    for k in range(classes) if classes > 2 else [1]:
        p = probability[:, k].clip(1e-9, 1 - 1e-9)
        score = (torch.logit(p) - np.log(1 / (1 / config["operating_point"] - 1))).clip(-12, 12)
        bins = ((score + 12) / 24 * config["bins"]).long().clip(0, config["bins"] - 1)
        of_class = labels == k
        rows = [
            torch.bincount(bins[one], minlength=config["bins"]) for one in (~of_class, of_class)
        ]
        tables.append(np.stack([merge(row.numpy(), minimum) for row in rows]))
        areas.append(area(p, of_class))
        rates.append([mean(score[of_class] >= 0), mean(score[~of_class] < 0)])
    counts = {"scores": np.stack(tables)}
    if classes > 2:
        hits = [torch.bincount(right[labels == k].long(), minlength=2) for k in range(classes)]
        counts["classified"] = np.stack([merge_half(row.numpy(), minimum) for row in hits])
    return {
        "counts": counts,
        "metrics": {
            "loss": mean(-probability[truth == 1].clip(1e-12).log()),
            "accuracy": mean(right),
            "sensitivity": float(np.mean([rate[0] for rate in rates])),
            "specificity": float(np.mean([rate[1] for rate in rates])),
            "brier": mean((probability - truth).square().sum(1) / 2),
            "auc": float(np.mean(areas)),
        },
        "examples": examples,
    }


def of_group(enough, labels, places, config):
    import numpy as np

    classes, groups = np.unique(labels[enough]), np.unique(places[enough])
    sizes = np.array([[np.sum((labels == c) & (places == g)) for c in classes] for g in groups])
    chosen = enough & (places == config["group"]) & np.all(sizes >= config["minimum_count"])
    return chosen, int(sizes.sum(1).min()) if chosen.any() else 0


def predict(images, enough, model, weights, config):
    import torch

    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model.eval()
    outputs = [torch.zeros(0, len(list(model.parameters())[-1])).double()]
    with torch.no_grad():
        for start in range(0, len(images), 256):
            chosen = images[start : start + 256][enough[start : start + 256]]
            if len(chosen):
                outputs.append(model(to_input(chosen, config)).double().softmax(1))
    return torch.cat(outputs)


def mean(values):
    return float(values.double().mean()) if len(values) else 0.0


def area(score, of_class):
    import torch

    above, below = score[of_class], score[~of_class].sort().values
    if not len(above) or not len(below):
        return 0.5  # there is nothing to tell apart
    lower = torch.searchsorted(below, above) + torch.searchsorted(below, above, right=True)
    return float(lower.double().mean() / 2 / len(below))


def merge(row, minimum):
    import numpy as np

    half = len(row) // 2
    low, high = int(row[:half].sum()), int(row[half:].sum())
    if all(n == 0 or n >= minimum for n in (low, high)):
        return np.concatenate([merge_half(row[:half], minimum), merge_half(row[half:], minimum)])
    return merge_half(row, minimum)


def merge_half(row, minimum):
    import numpy as np

    groups, members = [], []
    for k in range(len(row)):
        members += [k] * int(row[k])
        if len(members) >= minimum:
            groups.append(members)
            members = []
    if members and groups:
        groups[-1] += members
    merged = np.zeros_like(row)
    for group in groups:
        merged[round(np.mean(group))] += len(group)
    return merged


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
