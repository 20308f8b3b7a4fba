"""FedBN: what is local comes back to its own site alone, the rest is averaged."""

from __future__ import annotations

import numpy as np
import pytest

from federation.aggregation import FedBN, SiteUpdate
from policies.arrays import Arrays

LOCAL = {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}


def network(number: float) -> Arrays:
    """A convolution, its batch normalisation, a layer at the end, all filled with one number."""
    plain = ("0.weight", "10.weight", "10.bias", "1.weight", "1.bias")
    arrays: Arrays = {name: np.full(2, number, np.float32) for name in plain}
    arrays["1.running_mean"] = np.full(2, number, np.float32)
    arrays["1.running_var"] = np.full(2, number, np.float32)
    arrays["1.num_batches_tracked"] = np.array(int(number))
    return arrays


def values(arrays: Arrays) -> dict[str, float]:
    return {name: float(np.unique(array)[0]) for name, array in arrays.items()}


def test_the_arrays_of_batch_normalisation_are_local() -> None:
    assert set(FedBN().names(network(0))) == LOCAL


def test_arrays_can_be_named_by_patterns() -> None:
    assert FedBN(local=("10.*", "*.running_var")).names(network(0)) == [
        "10.weight", "10.bias", "1.running_var",
    ]  # fmt: skip


def test_rounds_by_hand_with_a_site_missing() -> None:
    algorithm = FedBN()
    state = algorithm.init(network(1))
    assert values(algorithm.to_send(state, "a")) == values(network(1))
    state, seen = algorithm.apply(
        state, [SiteUpdate("a", network(2), 3), SiteUpdate("b", network(6), 1)]
    )
    shared = {"0.weight": 3.0, "10.weight": 3.0, "10.bias": 3.0}  # (3 * 2 + 6) / 4
    assert values(algorithm.to_send(state, "a")) == shared | dict.fromkeys(LOCAL, 2.0)
    assert values(algorithm.to_send(state, "b")) == shared | dict.fromkeys(LOCAL, 6.0)
    assert values(algorithm.to_send(state, "new")) == shared | dict.fromkeys(LOCAL, 3.0)
    assert algorithm.to_send(state, "b")["1.num_batches_tracked"].dtype == np.int64
    # Norms are those of the six shared numbers: each moved by 1, by 5 and, in the mean, by 2.
    assert seen.site_norms == pytest.approx({"a": 6**0.5, "b": 5 * 6**0.5})
    assert seen.step_norm == pytest.approx(2 * 6**0.5)
    # b alone: a goes on with its own from before.
    state, _ = algorithm.apply(state, [SiteUpdate("b", network(8), 1)])
    shared = dict.fromkeys(shared, 8.0)
    assert values(algorithm.to_send(state, "a")) == shared | dict.fromkeys(LOCAL, 2.0)
    assert values(algorithm.to_send(state, "b")) == shared | dict.fromkeys(LOCAL, 8.0)


def test_a_model_without_batch_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no batch normalisation.*name its normalisation layers"):
        FedBN().init({"0.weight": np.zeros(2), "0.bias": np.zeros(2)})


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no array fits bn\.\*; look at the model's names"):
        FedBN(local=("1.*", "bn.*")).init(network(0))


@pytest.mark.parametrize("local", ["1.*", (1,), ("",)])
def test_patterns_are_a_tuple_of_texts(local: object) -> None:
    with pytest.raises(ValueError, match="FedBN cannot have `local`"):
        FedBN(local=local)
