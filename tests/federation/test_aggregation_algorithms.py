"""What holds for every algorithm."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import federation
from federation.aggregation import (
    Algorithm,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBN,
    FedNova,
    FedProx,
    FedYogi,
    Krum,
    Median,
    MultiKrum,
    NormBoundedMean,
    Scaffold,
    SiteUpdate,
    State,
    TrimmedMean,
    diagnostics_frame,
)
from federation.aggregation.saving import described, flattened, unflattened
from policies.arrays import Arrays, arrays_sha256, pack, unpack
from slow_aggregation import Slow, fed_avg
from updates import after, model, real_ones, some_updates, start, update

SITES = tuple("abcde")
EVERY: list[Algorithm] = [
    FedAvg(), FedProx(0.1), FedAvgM(), FedAdam(), FedYogi(), FedAdagrad(),
    Scaffold(0.1, dict.fromkeys(SITES, 1)), FedBN(), FedNova(), Median(), TrimmedMean(), Krum(),
    MultiKrum(), NormBoundedMean(),
]  # fmt: skip
every = pytest.mark.parametrize("algorithm", EVERY, ids=lambda a: type(a).__name__)


def network(rng: np.random.Generator) -> Arrays:
    """All dtypes that a contract knows, a scalar, an empty array and batch normalisation."""
    return {
        "conv.weight": rng.normal(size=(4, 3)).astype(np.float32),
        "conv.bias": rng.normal(size=4),
        "half": rng.normal(size=5).astype(np.float16),
        "scale": np.array(rng.normal()),
        "empty": np.zeros((0, 3), np.float32),
        "bn.weight": rng.normal(size=4).astype(np.float32),
        "bn.running_mean": rng.normal(size=4).astype(np.float32),
        "bn.running_var": np.square(rng.normal(size=4)).astype(np.float32),
        "bn.num_batches_tracked": np.array(rng.integers(1, 1000)),
        "steps": rng.integers(0, 99, 2).astype(np.int32),
    }


def a_round(seed: int, sites: tuple[str, ...] = SITES) -> list[SiteUpdate]:
    rng = np.random.default_rng(seed)
    return [
        SiteUpdate(s, network(rng), int(rng.integers(1, 999)), {"steps": int(rng.integers(1, 40))})
        for s in sites
    ]


def digest(state: State) -> tuple[str, str]:
    return arrays_sha256(state.weights), arrays_sha256(flattened(state.memory))


def start_of(algorithm: Algorithm) -> State:
    return algorithm.init(network(np.random.default_rng(0)))


def test_every_algorithm_is_here_and_can_be_reached_from_federation() -> None:
    def kinds(kind: type) -> set[str]:
        ours = kind.__module__.startswith("federation.") and not kind.__abstractmethods__
        own = {kind.__name__} if ours else set()
        return own.union(*(kinds(k) for k in kind.__subclasses__()))

    assert {type(a).__name__ for a in EVERY} == kinds(Algorithm)
    assert kinds(Algorithm) <= set(federation.__all__)


@every
def test_names_shapes_and_dtypes_stay(algorithm: Algorithm) -> None:
    state = start_of(algorithm)
    before = {name: (a.shape, a.dtype) for name, a in state.weights.items()}
    state, _ = algorithm.apply(state, a_round(1))
    assert {name: (a.shape, a.dtype) for name, a in state.weights.items()} == before
    assert all(isinstance(a, np.ndarray) for a in state.weights.values())


@every
def test_sites_in_any_order_give_the_same_bits(algorithm: Algorithm) -> None:
    state, _ = algorithm.apply(start_of(algorithm), a_round(1))
    orders = list(itertools.permutations(a_round(2)))[::7]
    assert len({digest(algorithm.apply(state, order)[0]) for order in orders}) == 1


@every
def test_a_state_that_was_saved_goes_on_to_the_same_bits(algorithm: Algorithm) -> None:
    state = start_of(algorithm)
    taken_up = state
    for seed in range(1, 5):
        state, seen = algorithm.apply(state, a_round(seed))
        taken_up, again = algorithm.apply(taken_up, a_round(seed))
        assert digest(taken_up) == digest(state)
        assert again == seen
        flat, groups = pack(flattened(taken_up.memory)), list(taken_up.memory)
        taken_up = State(unpack(pack(taken_up.weights)), unflattened(unpack(flat), groups))


@every
def test_the_state_and_the_updates_before_are_left_as_they_were(algorithm: Algorithm) -> None:
    state, _ = algorithm.apply(start_of(algorithm), a_round(1))
    updates = a_round(2)
    before = digest(state), pickle.dumps(updates)
    algorithm.apply(state, updates)
    algorithm.to_send(state, "a")
    assert (digest(state), pickle.dumps(updates)) == before
    with pytest.raises(FrozenInstanceError):
        state.weights = {}


MEANS: list[Algorithm] = [
    FedAvg(), FedProx(0.1), FedAvgM(momentum=0), FedNova(), Median(), TrimmedMean(), Krum(),
    MultiKrum(), NormBoundedMean(), Scaffold(0.1, dict.fromkeys(["s0", "s1", "s2", "s3", "s4"], 1)),
]  # fmt: skip
"""Those that take equal updates as they are; adaptive ones move towards them, see below."""


@pytest.mark.parametrize("algorithm", MEANS, ids=lambda a: type(a).__name__)
@given(model, model, st.lists(st.integers(1, 1000), min_size=5, max_size=5), st.integers(1, 40))
def test_equal_updates_give_the_update(
    algorithm: Algorithm, x: list[float], y: list[float], examples: list[int], steps: int
) -> None:
    equal = real_ones([Slow(y, n, steps) for n in examples])
    found = after(algorithm, x, equal).weights["w"]
    np.testing.assert_allclose(found, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "algorithm", [FedAdam(0.5), FedYogi(0.5), FedAdagrad(0.5)], ids=lambda a: type(a).__name__
)
@given(model, model)
def test_adaptive_steps_go_towards_equal_updates(
    algorithm: Algorithm, x: list[float], y: list[float]
) -> None:
    found = after(algorithm, x, real_ones([Slow(y, 3), Slow(y, 5)])).weights["w"]
    np.testing.assert_array_equal(np.sign(found - x), np.sign(np.subtract(y, x)))


@given(model, some_updates())
def test_fedprox_at_the_server_is_the_mean(x: list[float], drawn: list[Slow]) -> None:
    found = after(FedProx(0.5), x, real_ones(drawn)).weights["w"]
    np.testing.assert_allclose(found, fed_avg(drawn), rtol=1e-9, atol=1e-9)
    assert dict(FedProx(0.5).arguments) == {"proximal": 0.5}


PARTIAL = [a for a in EVERY if a.least_updates == 1]


@pytest.mark.parametrize("algorithm", PARTIAL, ids=lambda a: type(a).__name__)
def test_who_is_missing_does_not_count_in_the_mean(algorithm: Algorithm) -> None:
    """A round of a and c is one of two sites: nothing pulls the weights towards 0 for b."""
    if isinstance(algorithm, FedBN):
        algorithm = FedBN(local=("bn.*",))
    weights = {"w": np.array([4.0]), "bn.weight": np.array([1.0])}

    def made(site: str) -> SiteUpdate:
        return SiteUpdate(site, weights, 7, {"steps": 3})

    state = algorithm.init(weights)
    state, seen = algorithm.apply(state, [made(site) for site in ("c", "a")])
    assert state.weights["w"].tolist() == [4.0]
    assert list(seen.site_norms) == ["a", "c"]


@every
@pytest.mark.parametrize("examples", [None, 0])
def test_no_update_or_no_example_is_refused(algorithm: Algorithm, examples: int | None) -> None:
    updates = [] if examples is None else [replace(u, examples=0) for u in a_round(1)]
    with pytest.raises(ValueError, match=r"there is no update to average.*run the round again"):
        algorithm.apply(start_of(algorithm), updates)


def without(weights: Arrays) -> Arrays:
    return {name: a for name, a in weights.items() if name != "half"}


@every
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {**w, "conv.bias": np.array([1, 2, np.nan, 4])}, "`conv.bias` has numbers that"),
        (lambda w: {**w, "half": np.full(5, np.inf, np.float16)}, "`half` has numbers that are no"),
        (lambda w: {**w, "half": np.zeros(4, np.float16)}, r"`half` is float16 \(4,\), and the mo"),
        (lambda w: {**w, "half": np.zeros(5)}, r"`half` is float64 \(5,\), and the model's is flo"),
        (lambda w: {**w, "more": np.zeros(5)}, r"it has other arrays than the model \(more\)"),
        (without, r"it has other arrays than the model \(half\)"),
    ],
)
def test_an_update_that_does_not_fit_is_refused(
    algorithm: Algorithm, change: Callable[[Arrays], Arrays], words: str
) -> None:
    updates = a_round(1)
    updates[2] = replace(updates[2], weights=change(updates[2].weights))
    with pytest.raises(ValueError, match=f"the update of c cannot be used: {words}"):
        algorithm.apply(start_of(algorithm), updates)


@every
def test_two_updates_of_a_site_and_negative_examples_are_refused(algorithm: Algorithm) -> None:
    updates, state = a_round(1), start_of(algorithm)
    with pytest.raises(ValueError, match="a site has two updates in one round"):
        algorithm.apply(state, [*updates, updates[0]])
    updates[0] = replace(updates[0], examples=-1)
    with pytest.raises(ValueError, match=r"the update of a .* its number of examples is negative"):
        algorithm.apply(state, updates)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *((lambda k=k: k(rate=0), "`rate` = 0; give a number above 0")
          for k in (FedAvgM, FedAdam, FedYogi, FedAdagrad, FedNova)),
        *((lambda k=k: k(beta_1=1), "`beta_1` = 1; give a number from 0 to below 1")
          for k in (FedAdam, FedYogi, FedAdagrad)),
        *((lambda k=k: k(tau=-1e-3), "`tau` = -0.001; give a number above 0")
          for k in (FedAdam, FedYogi, FedAdagrad)),
        *((lambda k=k: k(beta_2=-0.1), "`beta_2` = -0.1; give a number from 0")
          for k in (FedAdam, FedYogi)),
        *((lambda k=k: k(faulty=-1), "`faulty` = -1; give a whole number of at least 0")
          for k in (TrimmedMean, Krum, MultiKrum)),
        (lambda: FedAvgM(momentum=1.0), "FedAvgM cannot have `momentum` = 1.0; give a number from"),
        (lambda: FedAdam(rate=float("nan")), "FedAdam cannot have `rate` = nan"),
        (lambda: FedAdam(rate="0.1"), "FedAdam cannot have `rate` = '0.1'; give a number"),
        (lambda: FedProx(-0.1), "FedProx cannot have `proximal` = -0.1; give a number of at least"),
        (lambda: FedNova(momentum=-0.1), "FedNova cannot have `momentum` = -0.1"),
        (lambda: FedNova(batch_size=0), "FedNova cannot have `batch_size` = 0; give a whole"),
        (lambda: FedNova(epochs=1.5), "FedNova cannot have `epochs` = 1.5; give a whole"),
        (lambda: TrimmedMean(True), "TrimmedMean cannot have `faulty` = True; give a whole"),
        (lambda: MultiKrum(selected=0), "MultiKrum cannot have `selected` = 0; give a whole"),
        (lambda: NormBoundedMean(0), "NormBoundedMean cannot have `bound` = 0; give a number"),
        (lambda: Scaffold(0, {"a": 1}), "Scaffold cannot have `learning_rate` = 0"),
        (lambda: Scaffold(1, {"a": 1}, rate=-1), "Scaffold cannot have `rate` = -1"),
        (lambda: Scaffold(1, {"a": 0}), r"Scaffold cannot have `sites\[a\]` = 0"),
        (lambda: Scaffold(1, {}), "Scaffold needs `sites`: every site of the study"),
        (lambda: Scaffold(1, {"a": 1}, batch_size=-2), "Scaffold cannot have `batch_size` = -2"),
        (lambda: Scaffold(1, {"a": 1}, epochs=0), "Scaffold cannot have `epochs` = 0"),
    ],
)  # fmt: skip
def test_hyperparameters_out_of_range_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@every
def test_an_algorithm_is_described_by_its_hyperparameters(algorithm: Algorithm) -> None:
    plain = described(algorithm)
    assert plain.pop("name") == type(algorithm).__name__
    made = type(algorithm)(**{k: tuple(v) if k == "local" else v for k, v in plain.items()})
    assert made == algorithm


def test_diagnostics_by_hand() -> None:
    """Changes (3, 4), (4, -3) and (-6, -8): orthogonal, opposite, orthogonal."""
    given_ = [update("a", 1, 4, 4), update("b", 1, 5, -3), update("c", 2, -5, -8)]
    _, seen = FedAvg().apply(FedAvg().init(start(1, 0)), given_)
    assert seen.site_norms == {"a": 5.0, "b": 5.0, "c": 10.0}
    assert seen.agreement == {"a": -0.5, "b": 0.0, "c": -0.5}
    assert seen.step_norm == pytest.approx(np.hypot(-5 / 4, -15 / 4))  # the mean change
    alone, _ = FedAvg().apply(FedAvg().init(start(1, 0)), given_[:1]), None
    assert alone[1].agreement == {}


def test_a_site_that_did_not_move_agrees_with_nobody() -> None:
    _, seen = FedAvg().apply(FedAvg().init(start(1)), [update("a", 1, 1), update("b", 1, 2)])
    assert seen.agreement == {"a": 0.0, "b": 0.0}


def test_diagnostics_are_shown_as_a_row_per_round_and_site() -> None:
    _, first = FedNova().apply(FedNova().init(start(0)), [update("a", 1, 2, steps=3)])
    krum = Krum()
    _, second = krum.apply(krum.init(start(0)), [update(s, 1, k) for k, s in enumerate("abcde")])
    frame = diagnostics_frame({1: first, 2: second})
    assert frame.index.tolist() == [(1, "a"), *((2, s) for s in "abcde")]
    assert frame.loc[(1, "a")].tolist()[-3:] == [True, 1.0, 3.0]
    assert frame["used"].sum() == 2
