# Tests whether a model gives away which images trained it; only counts of images leave.
#
# Reads     the `train` split of the approved dataset (members), its `val` and `test` splits
#           (hold-outs): images and labels.
# Computes  three attacks that give each image a score, higher for a guess of "member":
#           loss     less the cross-entropy of the model (Yeom et al. 2018, section 3.2)
#           offline  log-odds of the right class, and how far they lie above those of `shadows`
#                    models trained without the image, in deviations (Carlini et al. 2022)
#           online   the same log-odds under two Gaussians, of shadow models trained with and
#                    without it: the log of their ratio (Carlini et al. 2022, section V)
#           A shadow model starts from the arrays `start.NAME`, and is trained for `epochs` on a
#           random half of all images; the next one on the other half.
# Leaves    leakage   for each attack: how many hold-outs, and members, have a score in each of
#                     eight ranges, from the highest down. The first lies above all hold-outs; the
#                     next ones end where 0.1, 0.3, 1, 3, 10 and 30 % of hold-outs are passed.
#                     A cell is 0 or at least `minimum_count`: ranges take in more hold-outs, and
#                     members count as if their score was higher, so that no leak looks smaller.
#           member_loss, hold_out_loss  mean cross-entropy of the model
#           examples  the number of images counted


def test_leakage(data, weights, config):
    import numpy as np
    import torch

    config = {**defaults(), **config}
    splits = [split for split in ("train", "val", "test") if split in data.card["counts"]]
    parts = [data.arrays(split) for split in splits]
    images = np.concatenate([part[0] for part in parts])
    labels = torch.from_numpy(np.concatenate([part[1] for part in parts]))
    member = np.arange(len(labels)) < len(parts[0][1])
    model = build_model(data.card, config)
    start = {n[6:]: torch.from_numpy(a) for n, a in weights.items() if n[:6] == "start."}
    model.load_state_dict({name: torch.from_numpy(weights[name]) for name in start})
    loss, confidence = confidences(model, images, labels, config)
    half, inside, shadows = member, [], []
    order = np.random.default_rng([config["seed"], len(labels)])
    for number in range(config["shadows"]):
        half = ~half if number % 2 else order.permutation(len(labels)) < len(labels) // 2
        model.load_state_dict(start)
        train_shadow(model, images, labels, np.flatnonzero(half), config, order)
        inside.append(half)
        shadows.append(confidences(model, images, labels, config)[1])
    offline, online = likelihood_ratios(confidence, np.stack(shadows), np.stack(inside))
    least, attacks = config["minimum_count"], (-loss, offline, online)
    losses = [loss[group].mean() if group.sum() >= least else 0.0 for group in (member, ~member)]
    return {
        "counts": {"leakage": np.stack([ranges(s[~member], s[member], least) for s in attacks])},
        "metrics": {"member_loss": float(losses[0]), "hold_out_loss": float(losses[1])},
        "examples": len(labels),
    }


def defaults():
    return {
        "model": "small_cnn",  # or mobilenet_v2, resnet18, densenet121
        "normalisation": "group",  # or batch
        "size": 0,  # images are resized to so many pixels; 0: as they are
        "shadows": 8,  # models trained to compare with, an even number
        "learning_rate": 0.05,
        "momentum": 0.9,
        "batch_size": 32,
        "epochs": 5,
        "seed": 0,
    }


def train_shadow(model, images, labels, chosen, config, order):
    import numpy as np
    import torch

    settings = {"lr": config["learning_rate"], "momentum": config["momentum"]}
    optimizer = torch.optim.SGD(model.parameters(), **settings)
    model.train()
    for _ in range(config["epochs"]):
        batches = -(-len(chosen) // config["batch_size"])
        for batch in np.array_split(order.permutation(chosen), batches):
            optimizer.zero_grad()
            scores = model(to_input(images[batch], config))
            torch.nn.functional.cross_entropy(scores, labels[batch]).backward()
            optimizer.step()


def confidences(model, images, labels, config):
    import numpy as np
    import torch

    losses, odds = [], []
    model.eval()
    with torch.no_grad():
        for start in range(0, len(images), 256):
            right = labels[start : start + 256, None]
            scores = model(to_input(images[start : start + 256], config)).double()
            losses.append(torch.nn.functional.cross_entropy(scores, right[:, 0], reduction="none"))
            others = scores.scatter(1, right, -torch.inf).logsumexp(1)
            odds.append(scores.gather(1, right)[:, 0] - others)
    return np.concatenate(losses), np.concatenate(odds)


def likelihood_ratios(confidence, shadows, inside):
    import numpy as np

    means, variances = [], []
    for chosen in (inside, ~inside):
        mean = (shadows * chosen).sum(0) / chosen.sum(0).clip(1)
        means.append(mean)
        # One variance for all images, as Carlini et al. advise for few shadow models.
        variances.append((np.square(shadows - mean) * chosen).sum() / max(chosen.sum(), 1) + 1e-6)
    with_it, without = (np.square(confidence - means[k]) / variances[k] for k in (0, 1))
    return (confidence - means[1]) / np.sqrt(variances[1]), (without - with_it) / 2


def ranges(hold_outs, members, minimum):
    import numpy as np

    shares = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    passed = np.zeros((2, len(shares) + 1), np.int64)  # hold-outs, members so far
    n, m, falling = len(hold_outs), len(members), np.sort(hold_outs)[::-1]
    if n < minimum or m < minimum:
        return passed[:, 1:]
    for k, share in enumerate(shares):
        wanted = fit(int(np.ceil(share * n - 1e-9)), passed[0, k], n, minimum)
        if wanted:  # ties are passed together
            wanted = fit(int((hold_outs >= falling[wanted - 1]).sum()), passed[0, k], n, minimum)
        reached = m if wanted == n else int((members > falling[wanted]).sum())
        passed[:, k + 1] = wanted, fit(reached, passed[1, k], m, minimum)
    return np.diff(passed)


def fit(count, before, whole, minimum):
    if count <= before:
        return before
    if count < before + minimum:
        count = before + minimum
    return whole if whole - count < minimum else count


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
