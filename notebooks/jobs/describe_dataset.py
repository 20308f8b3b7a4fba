# Describes a dataset; only counts of images, a mean and a deviation leave.
#
# Reads     one split of the approved dataset (argument `split`): images and labels.
# Computes  how bright pixels are, from 0 to 1, of all colours alike.
# Leaves    intensities  a row per class, `bins` equal bins of the brightness. Each image is divided
#                        among the bins by its pixels; a cell is the sum of these parts in whole
#                        images, so a row adds up to the images of the class. Neighbouring bins are
#                        merged until a cell holds at least `minimum_count` images; a merged cell
#                        stands at the mean bin of its images.
#           mean, deviation  of the brightness of all pixels
#           examples     the number of images counted; a class with too few images is left out


def describe(data, weights, config):
    import numpy as np

    images, labels = data.arrays(config["split"])
    classes, bins = len(data.card["classes"]), config["bins"]
    parts, total, squares, examples = np.zeros((classes, bins)), 0.0, 0.0, 0
    for k in range(classes):
        chosen = np.flatnonzero(labels == k)
        if len(chosen) < config["minimum_count"]:
            continue
        examples += len(chosen)
        for start in range(0, len(chosen), 32):
            bright = brightness(images[chosen[start : start + 32]])
            pixels = bright[0].size
            parts[k] += np.histogram(bright, bins, (0, 1))[0] / pixels
            total += bright.sum() / pixels
            squares += np.square(bright).sum() / pixels
    mean = total / max(examples, 1)
    whole = np.diff(np.round(parts.cumsum(axis=1)), prepend=0).astype(np.int64)
    return {
        "counts": {"intensities": np.stack([merge(row, config["minimum_count"]) for row in whole])},
        "metrics": {
            "mean": float(mean),
            "deviation": float(np.sqrt(max(squares / max(examples, 1) - mean**2, 0.0))),
        },
        "examples": examples,
    }


def brightness(images):
    import numpy as np

    whole = 255 if images.dtype == np.uint8 else 1  # floats are 0 to 1
    return images.astype(np.float64) / whole


def merge(row, minimum):
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
