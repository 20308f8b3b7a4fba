"""Rebuild an image from one update: one step of SGD on one image, from weights that are known.

The attacker has the weights that were sent, the model and the update, and knows the learning rate.
It looks for the image whose gradient points the way that the update points (cosine distance), with
a penalty on total variation: Geiping, Bauermeister, Droege, Moeller: Inverting Gradients, NeurIPS
2020, section 4, after Zhu, Liu, Han: Deep Leakage from Gradients, NeurIPS 2019. The label is given
to it, which makes the attack stronger.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from policies.arrays import Arrays

Picture = NDArray[np.float64]
"""(H, W) in [0, 1]."""
LEARNING_RATE = 0.1


def small_model(seed: int = 0) -> nn.Sequential:
    """Two convolutions and a linear layer for images of 28 x 28, smooth as in Zhu et al."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 12, 5, padding=2, stride=2), nn.Sigmoid()]
    layers += [nn.Conv2d(12, 12, 5, padding=2), nn.Sigmoid(), nn.Flatten(), nn.Linear(2352, 2)]
    model = nn.Sequential(*layers)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def weights_of(model: nn.Module) -> Arrays:
    """Name -> array, as they are sent."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.named_parameters()}


def one_step(model: nn.Module, image: Picture, label: int) -> Arrays:
    """The update of one image: the weights after one step of SGD."""
    x = torch.from_numpy(image.astype(np.float32))[None, None]
    gradients = torch.autograd.grad(_loss(model, x, label), list(model.parameters()))
    return {
        name: (tensor.detach() - LEARNING_RATE * gradient).numpy()
        for (name, tensor), gradient in zip(model.named_parameters(), gradients, strict=True)
    }


def invert(
    model: nn.Module, update: Arrays, label: int, *, steps: int = 300, seed: int = 1
) -> Picture:
    """The image that an update seems to come from."""
    wanted = [
        (tensor.detach() - torch.from_numpy(np.asarray(update[name]))) / LEARNING_RATE
        for name, tensor in model.named_parameters()
    ]
    torch.manual_seed(seed)
    x = (0.5 + 0.1 * torch.randn(1, 1, 28, 28)).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        found = torch.autograd.grad(
            _loss(model, x, label), list(model.parameters()), create_graph=True
        )
        (_distance(found, wanted) + 1e-4 * _variation(x)).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            x.clamp_(0, 1)
    return x.detach()[0, 0].numpy().astype(np.float64)


def _loss(model: nn.Module, x: torch.Tensor, label: int) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(x), torch.tensor([label]))


def _distance(found: tuple[torch.Tensor, ...], wanted: list[torch.Tensor]) -> torch.Tensor:
    one = torch.cat([part.flatten() for part in found])
    other = torch.cat([part.flatten() for part in wanted]).float()
    return 1 - torch.nn.functional.cosine_similarity(one, other, dim=0)


def _variation(x: torch.Tensor) -> torch.Tensor:
    return (x[..., 1:, :] - x[..., :-1, :]).abs().mean() + (x[..., 1:] - x[..., :-1]).abs().mean()


def masked(update: Arrays, sent: Arrays, rng: np.random.Generator) -> Arrays:
    """What a server sees of one site in secure aggregation: the change plus a pairwise mask.

    The change is a whole number in units of 2^-24 modulo 2^64, the mask is uniform there, so that
    the sum is uniform whatever the change is (Bonawitz et al., CCS 2017, section 4). It is read
    back as a number as if there were no mask.
    """
    seen = {}
    for name, array in update.items():
        whole = np.rint((array.astype(np.float64) - sent[name]) * 2**24).astype(np.int64)
        mask = rng.integers(0, 2**64, whole.shape, dtype=np.uint64)
        total = whole.view(np.uint64) + mask
        seen[name] = sent[name] + total.view(np.int64) / 2**24
    return seen


def likeness(one: Picture, other: Picture) -> float:
    """Pearson correlation of the pixels, from -1 to 1."""
    if one.std() < 1e-9 or other.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
