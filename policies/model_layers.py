"""The layers that a model may be made of where the hospital's own trainer trains it.

Each is a class of `torch.nn` with its constructor's arguments in allowed ranges. None keeps a
buffer, so that nothing but parameters is trained; none mixes images, so that one image has a
gradient of its own. What a layer makes of a shape is computed here, without torch.

A shape is that of one image: (C, H, W) for maps, (F,) for rows.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from policies.strict import Strict

Shape = tuple[int, ...]
Channels = Annotated[int, Field(ge=1, le=8192)]
Kernel = Annotated[int, Field(ge=1, le=32)]
Padding = Annotated[int, Field(ge=0, le=16)]


class ShapeError(ValueError):
    """A layer or function gets a shape that it cannot take; the message is a sentence's part."""


class Conv2d(Strict):
    """`torch.nn.Conv2d`; `groups` as many as channels for a depthwise convolution."""

    type: Literal["Conv2d"]
    in_channels: Channels
    out_channels: Channels
    kernel_size: tuple[Kernel, Kernel]
    stride: tuple[Kernel, Kernel] = (1, 1)
    padding: tuple[Padding, Padding] = (0, 0)
    dilation: tuple[Kernel, Kernel] = (1, 1)
    groups: Channels = 1
    bias: bool = True
    padding_mode: Literal["zeros"] = "zeros"

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> Self:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError("`groups` must divide `in_channels` and `out_channels`")
        return self

    def parameters(self) -> dict[str, Shape]:
        """Name -> shape of what is trained."""
        weight = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        return {"weight": weight} | ({"bias": (self.out_channels,)} if self.bias else {})

    def after(self, shape: Shape) -> Shape:
        """The shape of what comes out."""
        channels, *sides = maps(shape)
        if channels != self.in_channels:
            raise ShapeError(f"{channels} channels where {self.in_channels} are declared")
        return (
            self.out_channels,
            *(
                _slid(side, *one, ceiling=False)
                for side, *one in zip(
                    sides, self.kernel_size, self.stride, self.padding, self.dilation, strict=True
                )
            ),
        )


class Linear(Strict):
    """`torch.nn.Linear` on rows."""

    type: Literal["Linear"]
    in_features: int = Field(ge=1, le=1_000_000)
    out_features: int = Field(ge=1, le=100_000)
    bias: bool = True

    def parameters(self) -> dict[str, Shape]:
        """Name -> shape of what is trained."""
        weight = (self.out_features, self.in_features)
        return {"weight": weight} | ({"bias": (self.out_features,)} if self.bias else {})

    def after(self, shape: Shape) -> Shape:
        """The shape of what comes out."""
        if shape != (self.in_features,):
            raise ShapeError(f"shape {shape} where {(self.in_features,)} is declared")
        return (self.out_features,)


class GroupNorm(Strict):
    """`torch.nn.GroupNorm`: the statistics are one image's own."""

    type: Literal["GroupNorm"]
    num_groups: Channels
    num_channels: Channels
    eps: float = Field(default=1e-5, gt=0, le=1)
    affine: bool = True

    @model_validator(mode="after")
    def _groups_divide_channels(self) -> Self:
        if self.num_channels % self.num_groups:
            raise ValueError("`num_groups` must divide `num_channels`")
        return self

    def parameters(self) -> dict[str, Shape]:
        """Name -> shape of what is trained."""
        own = (self.num_channels,)
        return {"weight": own, "bias": own} if self.affine else {}

    def after(self, shape: Shape) -> Shape:
        """The shape of what comes out."""
        if maps(shape)[0] != self.num_channels:
            raise ShapeError(f"{shape[0]} channels where {self.num_channels} are declared")
        if shape[1] * shape[2] * (self.num_channels // self.num_groups) < 2:
            raise ShapeError("groups of a single value, which have no variance")
        return shape


class _Pointwise(Strict):
    """A layer that looks at each number by itself, without parameters."""

    def parameters(self) -> dict[str, Shape]:
        """Nothing is trained."""
        return {}

    def after(self, shape: Shape) -> Shape:
        """The same shape."""
        return shape


class Activation(_Pointwise):
    """An activation of `torch.nn` without arguments."""

    type: Literal[
        "Hardsigmoid", "Hardswish", "Identity", "Mish", "ReLU", "Sigmoid", "SiLU", "Softsign",
        "Tanh",
    ]  # fmt: skip


class ReLU6(_Pointwise):
    """`torch.nn.ReLU6`."""

    type: Literal["ReLU6"]
    min_val: float = Field(default=0.0, ge=0, le=0)
    max_val: float = Field(default=6.0, ge=6, le=6)


class LeakyReLU(_Pointwise):
    """`torch.nn.LeakyReLU`."""

    type: Literal["LeakyReLU"]
    negative_slope: float = Field(default=0.01, ge=0, le=1)


class ELU(_Pointwise):
    """`torch.nn.ELU`."""

    type: Literal["ELU"]
    alpha: float = Field(default=1.0, gt=0, le=10)


class GELU(_Pointwise):
    """`torch.nn.GELU`."""

    type: Literal["GELU"]
    approximate: Literal["none", "tanh"] = "none"


class Dropout(_Pointwise):
    """`torch.nn.Dropout`, or `Dropout2d` of whole channels; what is dropped is drawn per image."""

    type: Literal["Dropout", "Dropout2d"]
    p: float = Field(default=0.5, ge=0, lt=1)

    def after(self, shape: Shape) -> Shape:
        """The same shape; `Dropout2d` takes maps only."""
        return maps(shape) if self.type == "Dropout2d" else shape


class _Pool(Strict):
    """A window that slides over maps."""

    kernel_size: tuple[Kernel, Kernel]
    stride: tuple[Kernel, Kernel]
    padding: tuple[Padding, Padding] = (0, 0)
    ceil_mode: bool = False

    @model_validator(mode="after")
    def _padding_is_within_the_window(self) -> Self:
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError("`padding` is at most half of `kernel_size`")
        return self

    def parameters(self) -> dict[str, Shape]:
        """Nothing is trained."""
        return {}

    def after(self, shape: Shape) -> Shape:
        """The shape of what comes out."""
        channels, *sides = maps(shape)
        windows = zip(sides, self.kernel_size, self.stride, self.padding, strict=True)
        return (channels, *(_slid(*one, 1, ceiling=self.ceil_mode) for one in windows))


class MaxPool2d(_Pool):
    """`torch.nn.MaxPool2d`."""

    type: Literal["MaxPool2d"]
    dilation: tuple[Literal[1], Literal[1]] = (1, 1)
    return_indices: Literal[False] = False


class AvgPool2d(_Pool):
    """`torch.nn.AvgPool2d`."""

    type: Literal["AvgPool2d"]
    count_include_pad: bool = True
    divisor_override: None = None


class AdaptiveAvgPool2d(Strict):
    """`torch.nn.AdaptiveAvgPool2d` to a fixed size."""

    type: Literal["AdaptiveAvgPool2d"]
    output_size: tuple[Kernel, Kernel]

    def parameters(self) -> dict[str, Shape]:
        """Nothing is trained."""
        return {}

    def after(self, shape: Shape) -> Shape:
        """The shape of what comes out."""
        return (maps(shape)[0], *self.output_size)


class Flatten(Strict):
    """`torch.nn.Flatten` of everything but the images."""

    type: Literal["Flatten"]
    start_dim: Literal[1] = 1
    end_dim: Literal[-1] = -1

    def parameters(self) -> dict[str, Shape]:
        """Nothing is trained."""
        return {}

    def after(self, shape: Shape) -> Shape:
        """Rows."""
        return flat(shape)


Layer = Annotated[
    Conv2d | Linear | GroupNorm | Activation | ReLU6 | LeakyReLU | ELU | GELU | Dropout
    | MaxPool2d | AvgPool2d | AdaptiveAvgPool2d | Flatten,
    Field(discriminator="type"),
]  # fmt: skip
LAYERS = (
    "AdaptiveAvgPool2d", "AvgPool2d", "Conv2d", "Dropout", "Dropout2d", "ELU",
    "Flatten", "GELU", "GroupNorm", "Hardsigmoid", "Hardswish", "Identity", "LeakyReLU", "Linear",
    "MaxPool2d", "Mish", "ReLU", "ReLU6", "Sigmoid", "SiLU", "Softsign", "Tanh",
)  # fmt: skip
"""The names of all of them."""


def maps(shape: Shape) -> Shape:
    """The shape, if it is (C, H, W)."""
    if len(shape) != 3:
        raise ShapeError(f"shape {shape} where maps (channels, height, width) are needed")
    return shape


def flat(shape: Shape) -> Shape:
    """One row of all numbers of a shape."""
    size = 1
    for side in shape:
        size *= side
    return (size,)


def _slid(
    side: int, kernel: int, stride: int, padding: int, dilation: int, *, ceiling: bool
) -> int:
    """How many places a window has on a side, as torch counts them."""
    room = side + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        raise ShapeError(f"a window of {kernel} on a side of {side}")
    places = (room + (stride - 1 if ceiling else 0)) // stride + 1
    if ceiling and (places - 1) * stride >= side + padding:
        places -= 1  # no window begins in the padding on the right
    return places
