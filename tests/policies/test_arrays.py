"""Named arrays survive the crossing bit by bit, and other bytes are refused in one way only."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policies.arrays import (
    PART,
    Arrays,
    MalformedArraysError,
    arrays_sha256,
    change_norm,
    difference,
    global_norm,
    pack,
    type_names,
    unpack,
)

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda name: name != "__metadata__"  # a word of the format itself
)
arrays = hnp.arrays(
    dtype=st.sampled_from([np.dtype(name) for name in type_names]),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
named = st.dictionaries(names, arrays, max_size=5)


def assert_same(one: Arrays, other: Arrays) -> None:
    assert set(one) == set(other)
    for name, array in one.items():
        assert array.dtype == other[name].dtype
        assert array.shape == other[name].shape
        assert array.tobytes() == other[name].tobytes()


@given(named)
def test_arrays_come_back_as_they_were(sent: Arrays) -> None:
    assert_same(unpack(pack(sent)), sent)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (1, 1, 1)])
def test_shape_comes_back_as_it_was(shape: tuple[int, ...]) -> None:
    """A counter of batches, for one, has the shape ()."""
    assert unpack(pack({"a": np.ones(shape, np.int64)}))["a"].shape == shape


GRID = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(GRID.T, id="transposed"),
        pytest.param(np.asfortranarray(GRID), id="columns first"),
        pytest.param(GRID[::2], id="every other row"),
        pytest.param(GRID[:, ::3], id="every third column"),
        pytest.param(GRID[::-1], id="backwards"),
        pytest.param(np.broadcast_to(GRID[0], (5, 6)), id="broadcast"),
        pytest.param(GRID.astype(">f4"), id="big-endian"),
    ],
)
def test_values_come_back_whatever_the_memory_looks_like(view: np.ndarray) -> None:
    np.testing.assert_array_equal(unpack(pack({"a": view}))["a"], view)


@given(named, st.randoms())
def test_same_arrays_are_the_same_bytes_in_any_order(sent: Arrays, random: Any) -> None:
    order = list(sent)
    random.shuffle(order)
    assert pack({name: sent[name] for name in order}) == pack(sent)


@given(named)
def test_packed_again_they_are_the_same_bytes(sent: Arrays) -> None:
    assert pack(unpack(pack(sent))) == pack(sent)


BASE: Arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, np.int64)}


def flipped(bit: int) -> Arrays:
    raw = bytearray(BASE["w"].tobytes())
    raw[bit // 8] ^= 1 << bit % 8
    return {**BASE, "w": np.frombuffer(bytes(raw), np.float32).reshape(2, 3)}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"v": BASE["w"], "b": BASE["b"]}, id="name"),
        pytest.param({"w": BASE["w"].view(np.int32), "b": BASE["b"]}, id="dtype, same bits"),
        pytest.param({"w": BASE["w"].reshape(3, 2), "b": BASE["b"]}, id="shape, same bits"),
        pytest.param({"w": BASE["w"].reshape(1, 2, 3), "b": BASE["b"]}, id="one more axis"),
        pytest.param({"w": BASE["w"]}, id="one array less"),
        pytest.param({**BASE, "c": np.zeros(0, np.int64)}, id="an empty array more"),
        pytest.param({**BASE, "w": -0.0 * BASE["w"]}, id="minus zero"),
    ],
)
def test_digest_changes_with_every_part(other: Arrays) -> None:
    assert arrays_sha256(other) != arrays_sha256(BASE)


def test_digest_changes_with_every_bit() -> None:
    digests = {arrays_sha256(flipped(bit)) for bit in range(6 * 32)}
    assert len(digests) == 6 * 32
    assert arrays_sha256(BASE) not in digests


def test_digest_is_of_the_value_and_not_of_the_memory() -> None:
    copied = {name: np.asfortranarray(array) for name, array in BASE.items()}
    assert arrays_sha256(copied) == arrays_sha256(BASE)


PACKED = pack(BASE)


@pytest.mark.parametrize("length", range(len(PACKED)))
def test_truncated_bytes_are_refused(length: int) -> None:
    with pytest.raises(MalformedArraysError, match="not named arrays"):
        unpack(PACKED[:length])


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, len(PACKED) - 1), st.integers(0, 255)), max_size=4))
def test_mutated_bytes_are_refused_or_are_arrays_of_allowed_types(
    edits: list[tuple[int, int]],
) -> None:
    raw = bytearray(PACKED)
    for position, value in edits:
        raw[position] = value
    try:
        found = unpack(bytes(raw))
    except MalformedArraysError:
        return
    assert all(array.dtype.name in type_names for array in found.values())


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedArraysError):
        unpack(raw)


def framed(header: object, data: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_hand_made_bytes_are_arrays() -> None:
    made = unpack(framed({"a": entry()}, b"\0\0\x80\x3f"))
    assert made["a"].tolist() == [1.0]  # else the refusals below prove nothing


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(struct.pack("<Q", 2**63), id="a header longer than memory"),
        pytest.param(framed(b"[]"), id="a header that is a list"),
        pytest.param(framed(b"{" * 50_000), id="a header nested deeply"),
        pytest.param(framed(b"\xff\xfe"), id="a header that is not text"),
        pytest.param(framed({"a": entry()}), id="data missing"),
        pytest.param(framed({"a": entry()}, b"\0" * 5), id="a byte too many"),
        pytest.param(framed({"a": entry(shape=(2,))}, b"\0" * 4), id="a shape too large"),
        pytest.param(framed({"a": entry(shape=(-1,))}, b"\0" * 4), id="a negative shape"),
        pytest.param(
            framed({"a": entry(shape=(2**40, 2**40))}, b"\0" * 4), id="a shape that overflows"
        ),
        pytest.param(
            framed({"a": entry(shape=(2**62, 4))}, b"\0" * 4), id="a shape that wraps around"
        ),
        pytest.param(framed({"a": entry(offsets=(4, 0))}, b"\0" * 4), id="offsets swapped"),
        pytest.param(
            framed({"a": entry(), "b": entry()}, b"\0" * 4), id="two arrays over the same bytes"
        ),
        pytest.param(framed({"a": entry("O")}, b"\0" * 4), id="objects"),
        pytest.param(framed({"a": entry("F64")}, b"\0" * 4), id="half a float64"),
        pytest.param(b"PK\x03\x04" + b"\0" * 60, id="a zip"),
        pytest.param(b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00N.", id="a pickle"),
    ],
)
def test_bytes_that_are_not_arrays_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedArraysError):
        unpack(raw)


@pytest.mark.parametrize(
    ("dtype", "size"), [("U16", 2), ("U32", 4), ("U64", 8), ("BF16", 2), ("F8_E4M3", 1)]
)
def test_type_outside_the_list_is_refused(dtype: str, size: int) -> None:
    raw = framed({"a": entry(dtype, offsets=(0, size))}, b"\0" * size)
    with pytest.raises(MalformedArraysError):
        unpack(raw)


@pytest.mark.parametrize(
    ("sent", "norm"),
    [
        ({}, 0.0),
        ({"a": np.zeros((0, 3), np.float32)}, 0.0),
        ({"a": np.array(-3.0)}, 3.0),
        ({"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}, 5.0),
        ({"a": np.array([3], np.int64), "b": np.array([4], np.float16)}, 5.0),
        ({"a": np.full(4, 60_000, np.float16)}, 120_000.0),  # would overflow in float16
        ({"a": np.full(4, 100, np.int8)}, 200.0),  # would overflow in int8
        ({"a": np.full(4, 1e30, np.float32)}, float(np.float32(1e30)) * 2),
    ],
)
def test_norm_is_over_all_entries(sent: Arrays, norm: float) -> None:
    assert global_norm(sent) == pytest.approx(norm, rel=1e-15)


@given(
    st.lists(st.integers(0, 2 * PART + 10), max_size=3),
    st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool"]),
    st.integers(0, 1000),
)
def test_change_is_the_norm_of_the_difference_whatever_the_parts(
    sizes: list[int], dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    after = {f"a{k}": (rng.random(size) * 9).astype(dtype) for k, size in enumerate(sizes)}
    before = {name: (rng.random(a.shape) * 9).astype(dtype) for name, a in after.items()}
    whole = global_norm(difference(after, before))
    assert change_norm(after, before) == pytest.approx(whole, rel=1e-13)


def test_what_was_not_there_before_counts_as_a_whole() -> None:
    after = {"a": np.array([3.0]), "b": np.array(4.0), "c": np.array([[12.0]])}
    assert change_norm(after, {"a": np.array([3.0, 3.0]), "b": np.array([4.0])}) == 13.0
    assert change_norm(after, after) == 0.0
    assert change_norm({"a": np.full(2, 1e300)}, {}) == np.inf


def test_difference_is_taken_in_float64() -> None:
    a = {"w": np.array([1, 255], np.uint8), "v": np.array(1.5, np.float32)}
    b = {"w": np.array([2, 0], np.uint8), "v": np.array(0.25, np.float32)}
    found = difference(a, b)
    assert found["w"].tolist() == [-1.0, 255.0]  # 255 in uint8
    assert found["v"] == 1.25
    assert {array.dtype.name for array in found.values()} == {"float64"}


def test_every_listed_type_crosses() -> None:
    sent = {name: np.zeros(2, name) for name in type_names}
    assert {array.dtype.name for array in unpack(pack(sent)).values()} == set(type_names)
