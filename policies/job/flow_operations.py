"""What operations of Python, numpy and torch do to the data in a value, by their names.

An operation that no table names is taken to work on every image by itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from policies.job.flow_syntax import FEW
from policies.job.flow_values import Mark, Reach, Trace, Value, join, strongest

REDUCING = frozenset({
    "average", "corrcoef", "count_nonzero", "cov", "fsum", "logsumexp", "mean", "nanmean", "nanstd",
    "nansum", "nanvar", "norm", "prod", "std", "std_mean", "sum", "trapz", "var", "var_mean",
})  # fmt: skip
"""Operations that make one number, or one per entry of an image, out of many images."""
EXTREMES = frozenset({
    "all", "amax", "amin", "aminmax", "any", "argmax", "argmin", "max", "median", "min", "mode",
    "nanmax", "nanmedian", "nanmin", "nanpercentile", "nanquantile", "percentile", "ptp",
    "quantile",
})  # fmt: skip
"""Operations whose result over many images is the value of a single one."""
TABLES = frozenset({
    "bincount", "Counter", "histc", "histogram", "histogram2d", "histogramdd", "unique",
})  # fmt: skip
"""Operations that count how often values occur."""
LOSSES = frozenset({
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy",
    "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "mse_loss",
    "nll_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "triplet_margin_loss",
})  # fmt: skip
SIZES = frozenset({"dim", "len", "numel", "size"})
SIZING = frozenset({"arange", "empty", "full", "ones", "range", "repeat", "zeros"})
"""Operations whose arguments decide how long their result is."""
COUNTING = frozenset({"arange", "count", "cumsum", "linspace", "logspace", "range"})
LOOSE = frozenset({
    "array_split", "chunk", "DataLoader", "dsplit", "hsplit", "histogram", "histogram2d",
    "kthvalue", "max", "median", "min", "mode", "nonzero", "sort", "split", "std_mean",
    "tensor_split", "TensorDataset", "topk", "unique", "var_mean", "vsplit", "where",
})  # fmt: skip
"""Operations that return a tuple or batches."""
PICKING = frozenset({"index_select", "select", "take"})
"""Operations whose last argument says which images are taken."""
JOINING = frozenset({"append", "cat", "concat", "concatenate", "hstack", "vstack"})
CONTAINER_CHANGES = frozenset({
    "add", "append", "appendleft", "extend", "insert", "setdefault", "update", "push",
})  # fmt: skip
CHANGES = CONTAINER_CHANGES | {
    "copyto", "fill", "itemset", "load_state_dict", "place", "put", "put_along_axis", "putmask",
    "register_buffer", "register_parameter", "set", "set_", "vector_to_parameters", "__setitem__",
    "setitem",
}  # fmt: skip
"""Operations that put their arguments into the object that they are called on, or given first."""
SUMMING_CHANGES = frozenset({"add_", "sub_", "addcmul_", "index_add_", "scatter_add_", "add.at"})
FREE = frozenset({
    "hasattr", "isinstance", "issubclass", "callable", "zeros_like", "ones_like",
    "empty_like", "rand_like", "randn_like", "full_like", "result_type", "finfo", "iinfo", "keys",
    "is_available",
})  # fmt: skip
"""Operations whose result says nothing of the entries of their arguments."""
FREE_ATTRIBUTES = frozenset({
    "device", "dtype", "itemsize", "is_cuda", "layout", "nbytes", "ndim", "requires_grad", "shape",
    "size",
})  # fmt: skip
CALLERS = frozenset({
    "apply", "apply_along_axis", "filter", "frompyfunc", "fromfunction", "map", "reduce", "sorted",
    "vectorize", "vmap", "max", "min",
})  # fmt: skip
"""Operations that call a function which they are given."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call, as they stand in the text and as they were evaluated."""

    node: ast.Call
    values: tuple[Value, ...]
    keywords: Mapping[str, Value]

    @property
    def all(self) -> tuple[Value, ...]:
        """Every argument, by position or by name."""
        return (*self.values, *self.keywords.values())

    @property
    def trace(self) -> Trace:
        """The strongest trace in any argument."""
        return strongest(value.trace for value in self.all)

    def numbers(self, position: int | None, *names: str) -> tuple[int | None, ...] | None:
        """The integers of an argument; None for what is not given, (None,) for the unknown."""
        for keyword in self.node.keywords:
            if keyword.arg in names:
                return _integers(keyword.value)
        if position is not None and position < len(self.node.args):
            return _integers(self.node.args[position])
        return None


def apply(operation: str, subject: Value, is_method: bool, given: Arguments) -> Value:
    """What an operation on `subject` gives; `given` holds the subject too unless `is_method`."""
    own = join(subject.trace, given.trace)
    marks = subject.marks - {Mark.LIST, Mark.PLACE, Mark.COUNTER}
    if operation in ("array", "asarray", "tensor", "as_tensor"):
        marks |= subject.marks & {Mark.PLACE}
    picks = any(Mark.PLACE in value.marks for value in given.values[-1:])
    if operation in PICKING and picks and own.reach == Reach.EVERY:
        return Value(replace(own, reach=Reach.CHOSEN))
    if operation in LOOSE and not _is_single(operation, is_method, given):
        marks = frozenset({Mark.LOOSE})
    if operation in FREE:
        return Value()
    if operation in SIZES:
        sized = own if own.sized else own.up_to(Reach.MANY)
        return Value(sized, marks=frozenset({Mark.PLACE}))
    if operation in COUNTING and not own.is_raw:
        return Value(own, marks=frozenset({Mark.RAMP}))
    if operation in SIZING and own.is_raw:
        return Value(replace(own, sized=True), marks=marks)
    if operation in REDUCING | EXTREMES:
        axis = given.numbers(0 if is_method else 1, "axis", "dim")
        weights = given.keywords.get("weights")
        if weights is not None and not weights.trace.is_raw:
            return Value(own)  # an average can be that of one image
        if operation in EXTREMES and not is_method and len(given.values) > 1 and axis == (None,):
            return Value(own)  # the larger of two values
        return _reduced(operation, Value(own, marks=subject.marks), axis)
    if operation in TABLES:
        return Value(_counted(operation, own, given), marks=marks)
    if operation in LOSSES:
        return Value(averaged(own, given), marks=marks)
    if operation in ("int", "item"):
        place = not own.is_raw and Mark.COUNTER not in subject.marks
        return Value(own, marks=frozenset({Mark.PLACE}) if place else subject.marks)
    return Value(_moved(operation, own, is_method, given), marks=marks)


def averaged(trace: Trace, given: Arguments) -> Trace:
    """A loss, averaged over its batch unless the call says otherwise."""
    for keyword in given.node.keywords:
        if keyword.arg == "reduction" and not (
            isinstance(keyword.value, ast.Constant) and keyword.value.value in ("mean", "sum")
        ):
            return trace
    return trace.up_to(Reach.MANY) if trace.reach == Reach.EVERY else trace


def is_change(operation: str) -> bool:
    """Whether an operation puts its arguments into its object: known ones, and torch's `…_`."""
    return operation in CHANGES or (operation.endswith("_") and not operation.startswith("_"))


def collected(value: Value) -> Value:
    """A value as one item among those of every other pass of the loop."""
    if value.own.reach == Reach.EACH:
        return value.with_own(value.own.up_to(Reach.EVERY))
    return value


def summed(trace: Trace, in_loop: bool) -> Trace:
    """A trace that is added up in a loop; numbers with a weight per pass can be told apart."""
    if in_loop and not (trace.weighted or trace.sized) and trace.reach in (Reach.EVERY, Reach.EACH):
        return trace.up_to(Reach.MANY)
    return trace


def multiplied(left: Trace, right: Trace, left_axes: bool) -> Trace:
    """A matrix product; `left_axes` says that its left side lies across the images."""
    product = join(left, right)
    if not (left.is_raw and right.is_raw):
        product = replace(product, pixels=False)  # scores of a linear model
    if left_axes and left.reach == Reach.EVERY == right.reach:
        return product.up_to(Reach.MANY)
    return product


def _reduced(operation: str, value: Value, axis: tuple[int | None, ...] | None) -> Value:
    own = value.own
    if axis is None:
        over_images = True
    elif own.images_first:
        over_images = 0 in axis
    else:
        over_images = any(number not in (0, None) for number in axis)
    if not over_images:
        if operation in ("argmax", "argmin"):
            own = replace(own, pixels=False)  # the number of a class
        return Value(own, marks=frozenset({Mark.LOOSE}) & _loose(operation))
    if own.sized or own.weighted or own.reach != Reach.EVERY:
        return Value(own, marks=value.marks)
    return Value(own.up_to(Reach.NOTABLE if operation in EXTREMES else Reach.MANY))


def _is_single(operation: str, is_method: bool, given: Arguments) -> bool:
    """Whether a tensor is split into images, or nearly so."""
    size = (given.numbers(0) or (None,))[0]
    return is_method and operation == "split" and size is not None and size < FEW


def _loose(operation: str) -> frozenset[Mark]:
    return frozenset({Mark.LOOSE}) if operation in LOOSE else frozenset()


def _counted(operation: str, own: Trace, given: Arguments) -> Trace:
    if own.reach != Reach.EVERY or own.weighted:
        return own
    weights = given.keywords.get("weights") or (given.values[1:2] or (None,))[0]
    if operation == "bincount" and weights is not None and weights.trace.is_raw:
        counted_raw = given.values and given.values[0].trace.is_raw
        return own.up_to(Reach.MANY) if counted_raw else own
    if operation in ("histogram2d", "histogramdd") and not all(
        value.trace.is_raw for value in given.values[:2]
    ):
        return own
    return own.up_to(Reach.NOTABLE if own.pixels else Reach.MANY)


def _moved(operation: str, own: Trace, is_method: bool, given: Arguments) -> Trace:
    """The trace after axes were moved; the first axis may stop to run over images."""
    start = 0 if is_method else 1
    if operation in ("ravel", "flatten") or operation in JOINING:
        return replace(own, images_first=True)
    if operation in ("reshape", "view"):
        first = (given.numbers(start, "shape") or (None,))[0]
        if first is not None:
            return replace(own, images_first=first == -1)
    if operation in ("unsqueeze", "expand_dims"):
        at_front = 0 in (given.numbers(start, "dim", "axis") or ())
        return replace(own, images_first=own.images_first and not at_front)
    if operation in ("transpose", "permute", "swapaxes", "moveaxis", "movedim"):
        axes = list(given.numbers(start, "axes") or ())
        for position in range(start + 1, len(given.node.args)):
            axes.extend(given.numbers(position) or ())
        pair = len(axes) == 2
        stays = (0 not in axes if pair else axes[:1] == [0]) if axes else False
        return own if stays else replace(own, images_first=not own.images_first)
    return own


def _integers(node: ast.expr) -> tuple[int | None, ...] | None:
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    items: Iterable[ast.expr] = node.elts if isinstance(node, ast.Tuple | ast.List) else (node,)
    return tuple(_integer(item) for item in items)


def _integer(node: ast.expr) -> int | None:
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return sign * node.value
    return None
