"""What goes into a run and what comes out, other than the contract says: none of it passes."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

import factories
from policies.arrays import pack
from policies.contract import ArrayContract, Contract
from tests.attacks.attacker import UID, attack
from tests.attacks.jobs import job

W = np.arange(4, dtype=np.float32)


@pytest.fixture(scope="module")
def study(victim):
    """An approved job that doubles the weights."""
    return victim.submit(factories.DOUBLE_JOB)


def safetensors(header: bytes, content: bytes = b"") -> bytes:
    """Bytes in the form of safetensors, with any header."""
    return struct.pack("<Q", len(header)) + header + content


def tensor(dtype: str, shape: list[int], start: int, end: int) -> bytes:
    """The header of one array `w`."""
    about = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return json.dumps({"w": about}).encode()


@pytest.mark.parametrize(
    ("weights", "rule"),
    [
        pytest.param(pack({"w": np.zeros(5, np.float32)}), "weights.shape", id="longer"),
        pytest.param(pack({"w": np.zeros(3, np.float32)}), "weights.shape", id="shorter"),
        pytest.param(pack({"w": np.zeros((2, 2), np.float32)}), "weights.shape", id="other rank"),
        pytest.param(pack({"w": np.zeros((4, 0), np.float32)}), "weights.shape", id="empty"),
        pytest.param(pack({"w": W.astype(np.float64)}), "weights.shape", id="float64"),
        pytest.param(pack({"w": W.astype(np.float16)}), "weights.shape", id="float16"),
        pytest.param(pack({"w": W.astype(np.int64)}), "weights.shape", id="whole numbers"),
        pytest.param(pack({"w": np.ones(4, np.bool_)}), "weights.shape", id="truth values"),
        pytest.param(pack({"w": W, "x": W}), "weights.names", id="one array too many"),
        pytest.param(pack({"v": W}), "weights.names", id="another name"),
        pytest.param(pack({}), "weights.names", id="no array"),
        pytest.param(pack({"w": W * np.nan}), "weights.finite", id="NaN"),
        pytest.param(pack({"w": W + np.float32(np.inf)}), "weights.finite", id="infinite"),
        pytest.param(safetensors(tensor("BF16", [4], 0, 8), bytes(8)), "weights.form", id="bf16"),
        pytest.param(safetensors(tensor("F8_E5M2", [4], 0, 4), bytes(4)), "weights.form", id="f8"),
        pytest.param(safetensors(tensor("F32", [4], 0, 2**40)), "weights.form", id="no content"),
        pytest.param(
            safetensors(tensor("F32", [2**40], 0, 2**42)), "weights.form", id="as large as can be"
        ),
        pytest.param(
            safetensors(tensor("F32", [4], 8, 0), bytes(16)), "weights.form", id="crossed"
        ),
        pytest.param(safetensors(b"{" * 1000), "weights.form", id="nested header"),
        pytest.param(struct.pack("<Q", 2**63) + bytes(8), "weights.form", id="endless header"),
        pytest.param(b"", "weights.form", id="nothing"),
        pytest.param(b"\x80\x04\x95" + bytes(100), "weights.form", id="a pickle"),
        pytest.param(b"PK\x03\x04" + bytes(100), "weights.form", id="a zip file"),
    ],
)
def test_weights_that_are_not_the_approved_model_do_not_reach_the_job(victim, study, weights, rule):
    with victim.logged() as events:
        answer = attack(
            victim.rita,
            "code.call",
            uid=UID.from_string(study._codes["st-marys"]),
            round=1,
            attempt=1,
            weights=weights,
            config='{"rate":0.5}',
        )
    assert answer.value is None
    assert set(answer.rules) == {rule}
    assert [e["event"] for e in events] == ["run refused"]
    charged = victim.sql("SELECT count(*) FROM runs WHERE request = ?", study.requests["st-marys"])
    assert charged == [(0,)]


def test_the_approved_model_reaches_the_job(victim):
    study = victim.submit(factories.DOUBLE_JOB)
    np.testing.assert_array_equal(victim.run(study, weights={"w": W}).weights["w"], 2 * W)


COUNTS = Contract(
    weights={"w": ArrayContract(shape=(4,), dtype="float32")},
    counts={"table": ArrayContract(shape=(2,), dtype="int32")},
    metrics=("loss",),
)
WIDE = Contract(weights={"w": ArrayContract(shape=(4,), dtype="float64")}, metrics=("loss",))
OPENING = """
import numpy as np
w, m, n = weights["w"], {"loss": 0.5}, 120
labels = data.arrays("train")[1]
z = np.zeros(4, np.float32)
"""


def expect(victim, returned: str, rules: list[str], contract: Contract | None = None) -> None:
    """Let a job return something: it is released without rules, else refused for just these."""
    changes = {} if contract is None else {"contract": contract}
    study = victim.submit(job(OPENING + f"return {returned}"), **changes)
    dtype = contract.weights["w"].dtype if contract else "float32"
    sent = {"weights": {"w": np.zeros(4, dtype)}}
    with victim.logged() as events:
        if rules:
            assert [f.rule for f in victim.refused(study, **sent).findings] == rules
        else:
            victim.run(study, **sent)
    ended = "update released"
    if rules:
        ended = "run failed" if rules == ["run.failed"] else "update refused"
    assert [e["event"] for e in events] == ["run started", ended]


@pytest.mark.parametrize(
    ("returned", "rule"),
    [
        # keys and names
        pytest.param('{"weights": {"w": w}, "metrics": m, "examples": n, "raw": labels}',
                     "update.keys", id="an extra key"),
        pytest.param('{"weights": {"w": w, "x": w}, "metrics": m, "examples": n}',
                     "update.names", id="an extra array"),
        pytest.param('{"weights": {"w/x": w, "w": w}, "metrics": m, "examples": n}',
                     "update.names", id="an extra array with a path for a name"),
        pytest.param('{"weights": {}, "metrics": m, "examples": n}',
                     "update.names", id="no array"),
        pytest.param('{"weights": {"w": w}, "counts": {"t": z.astype(int)}, "metrics": m, '
                     '"examples": n}', "counts.names", id="an undeclared table"),
        pytest.param('{"weights": {"w": w}, "metrics": {"loss": 1, "x": 2}, "examples": n}',
                     "metrics.names", id="an undeclared metric"),
        pytest.param('{"weights": {"w": w}, "examples": n}',
                     "metrics.names", id="no metric"),
        # shapes and types
        pytest.param('{"weights": {"w": np.zeros(5, np.float32)}, "metrics": m, "examples": n}',
                     "update.shape", id="another shape"),
        pytest.param('{"weights": {"w": w.astype(np.float64)}, "metrics": m, "examples": n}',
                     "update.shape", id="another dtype"),
        pytest.param('{"weights": {"w": w.reshape(2, 2)}, "metrics": m, "examples": n}',
                     "update.shape", id="another rank"),
        # values
        pytest.param('{"weights": {"w": z * np.nan}, "metrics": m, "examples": n}',
                     "update.finite", id="NaN"),
        pytest.param('{"weights": {"w": z + np.float32(np.inf)}, "metrics": m, "examples": n}',
                     "update.finite", id="infinite"),
        pytest.param('{"weights": {"w": w}, "metrics": {"loss": float("nan")}, "examples": n}',
                     "metrics.finite", id="a metric that is NaN"),
        pytest.param('{"weights": {"w": w}, "metrics": {"loss": float("inf")}, "examples": n}',
                     "metrics.finite", id="an infinite metric"),
        pytest.param('{"weights": {"w": z + 501}, "metrics": m, "examples": n}',
                     "update.norm", id="a norm of 1002"),
        pytest.param('{"weights": {"w": z + np.float32(3e38)}, "metrics": m, "examples": n}',
                     "update.norm", id="as large as a float32 can be"),
        pytest.param('{"weights": {"w": w}, "metrics": m, "examples": 9}',
                     "examples.minimum", id="nine images"),
        pytest.param('{"weights": {"w": w}, "metrics": m, "examples": 0}',
                     "examples.minimum", id="no image"),
        # no update at all
        pytest.param("None", "run.failed", id="nothing"),
        pytest.param("{}", "run.failed", id="an empty mapping"),
        pytest.param('data.arrays("train")[0]', "run.failed", id="the images themselves"),
        pytest.param('{"weights": {"w": w}, "metrics": m, "examples": -1}',
                     "run.failed", id="less than no image"),
        pytest.param('{"weights": {"w": w}, "metrics": m, "examples": 2**60}',
                     "run.failed", id="more images than there are"),
        pytest.param('{"weights": {"w": w}, "metrics": m, "examples": "many"}',
                     "run.failed", id="a text for a number"),
        pytest.param('{"weights": {"w": w.astype(object)}, "metrics": m, "examples": n}',
                     "run.failed", id="an array of objects"),
        pytest.param('{"weights": {"w": w.astype(complex)}, "metrics": m, "examples": n}',
                     "run.failed", id="complex numbers"),
        pytest.param('{"weights": {"w": [0.0] * 4}, "metrics": m, "examples": n}',
                     "run.failed", id="a list for an array"),
        pytest.param('{"weights": {"w": w}, "metrics": {"loss": "low"}, "examples": n}',
                     "run.failed", id="a text for a metric"),
        pytest.param('{"weights": {"w": np.zeros(10**7, np.float32)}, "metrics": m, "examples": n}',
                     "run.failed", id="40 MB"),
        pytest.param('{"weights": {"w": w}, "metrics": {"a" * 10**6: 1.0}, "examples": n}',
                     "run.failed", id="a name of a million letters"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_contract_does_not_leave(victim, returned, rule):
    expect(victim, returned, [rule])


@pytest.mark.parametrize(
    "returned",
    [
        pytest.param('{"weights": {"w": w}, "metrics": m, "examples": 10}', id="ten images"),
        pytest.param('{"weights": {"w": z + 500}, "metrics": m, "examples": n}', id="norm 1000"),
    ],
)
def test_what_is_just_within_the_policy_leaves(victim, returned):
    expect(victim, returned, [])


@pytest.mark.parametrize(
    ("cells", "rules"),
    [
        pytest.param("[5, 0]", [], id="five and none"),
        pytest.param("[4, 100]", ["counts.minimum"], id="four"),
        pytest.param("[1, 0]", ["counts.minimum"], id="one"),
        pytest.param("[-5, 100]", ["counts.minimum"], id="below zero"),
        pytest.param("[-2**31, 2**31 - 1]", ["counts.minimum"], id="the ends of the type"),
    ],
)
def test_cells_of_few_patients_do_not_leave(victim, cells, rules):
    returned = (
        f'{{"weights": {{"w": w}}, "counts": {{"table": np.array({cells}, np.int32)}}, '
        '"metrics": m, "examples": n}'
    )
    expect(victim, returned, rules, COUNTS)


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        pytest.param("np.array([5, 5, 5], np.int32)", "counts.shape", id="more cells"),
        pytest.param("np.array([5, 5], np.int64)", "counts.shape", id="wider cells"),
        pytest.param("np.array([5, 5], np.float32)", "counts.shape", id="fractions"),
    ],
)
def test_tables_other_than_declared_do_not_leave(victim, table, rule):
    returned = (
        f'{{"weights": {{"w": w}}, "counts": {{"table": {table}}}, "metrics": m, "examples": n}}'
    )
    expect(victim, returned, [rule], COUNTS)


@pytest.mark.parametrize("value", [1e3, 1e150, 1e200, 1e308])
def test_a_change_of_any_size_is_refused_by_its_rule(victim, value):
    """Squares of float64 numbers above 1e154 are infinite."""
    returned = f'{{"weights": {{"w": np.full(4, {value})}}, "metrics": m, "examples": n}}'
    expect(victim, returned, ["update.norm"], WIDE)
