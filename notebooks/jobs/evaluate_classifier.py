# Evaluates a two-class image classifier; only counts of images leave.
#
# Reads     one split of the approved dataset (argument `split`): images and labels.
# Computes  the score of each image: log-odds of the second class, cut to -12 .. 12.
# Leaves    scores    how many images of each class have a score in each of `bins` equal bins.
#                     Neighbouring bins are merged until a cell holds at least `minimum_count`
#                     images; a merged cell stands at the mean bin of its images. Scores below and
#                     above 0 are merged apart where both have enough images.
#           loss      mean cross-entropy
#           examples  the number of images counted; a class with too few images is left out


def evaluate(data, weights, config):
    import numpy as np
    import torch

    images, labels = data.arrays(config["split"])
    labels = np.array(labels)
    model = build_model(data.card)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model.eval()
    outputs = []
    with torch.no_grad():
        for start in range(0, len(images), 256):
            outputs.append(model(to_input(images[start : start + 256])))
    output = torch.cat(outputs)
    loss = float(torch.nn.functional.cross_entropy(output, torch.from_numpy(labels)))
    score = (output[:, 1] - output[:, 0]).numpy().clip(-12, 12)
    edges = np.linspace(-12, 12, config["bins"] + 1)
    table = np.stack([np.histogram(score[labels == k], edges)[0] for k in (0, 1)])
    merged = np.stack([merge(row, config["minimum_count"]) for row in table])
    return {
        "counts": {"scores": merged.astype(np.int64)},
        "metrics": {"loss": loss},
        "examples": int(merged.sum()),
    }


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
