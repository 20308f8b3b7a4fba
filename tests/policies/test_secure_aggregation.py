"""The protocol: sums are exact, masked updates look random, drop-outs cost their own part only."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from masked_rounds import Round, names, participants, random_update, random_words, terms
from policies.secure_aggregation.fixed_point import decode, encode, moved, quantise
from policies.secure_aggregation.masks import add_mask
from policies.secure_aggregation.noise_share import noise_share
from policies.secure_aggregation.shamir import PRIME, combine, split
from policies.secure_aggregation.step_refused import StepRefused
from policies.secure_aggregation.terms import WORD, least_threshold
from policies.secure_aggregation.unmasking import UnmaskingError

# --- fixed point -------------------------------------------------------------------------------


@pytest.mark.parametrize(("sites", "largest"), [(3, 1), (4, 1000), (64, 10**9), (16, 123_457)])
def test_the_largest_sum_does_not_wrap(sites: int, largest: int) -> None:
    """Every site at the clip with the largest weight: n * W * Q still fits."""
    asked = terms(sites, largest_examples=largest)
    assert sites * largest * asked.levels <= WORD
    for sign in (-1.0, 1.0):
        sent = {"w": np.zeros(2)}
        words = encode({"w": np.array([sign * 9e9, sign])}, sent, largest, asked)
        total = np.zeros_like(words)
        for _ in range(sites):
            total += words
        assert [int(t) for t in total.view(np.int64)[:2]] == [
            int(sign) * sites * largest * asked.levels
        ] * 2
        mean, examples = decode(total, asked)
        assert examples == sites * largest
        np.testing.assert_allclose(mean, sign * asked.clip, rtol=1e-15)


def test_steps_are_as_fine_as_fits() -> None:
    """One step more of the clip would let the largest sum wrap, but for the finest ones."""
    coarse = terms(64, largest_examples=10**9)
    assert 64 * 10**9 * (coarse.levels + 1) > WORD
    assert terms(3, largest_examples=1).levels == 2**40


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=30), st.floats(0.001, 100))
def test_a_change_is_off_by_half_a_step_at_most(change: list[float], clip: float) -> None:
    asked = terms(clip=clip)
    values = np.array(change)
    steps = quantise(values, asked)
    assert np.abs(steps).max() <= asked.levels
    wanted = values.clip(-clip, clip)
    assert np.abs(steps * asked.step - wanted).max() <= asked.step * 0.5 * (1 + 1e-9) + 1e-15 * clip


@pytest.mark.parametrize(("examples", "kept"), [(0, False), (1, True), (1000, True),
                                                (1001, False), (-5, False)])  # fmt: skip
def test_weights_past_what_was_approved_are_refused(examples: int, kept: bool) -> None:
    sent, after = random_update(np.random.default_rng(0))
    if kept:
        assert encode(after, sent, examples, terms())[-1] == examples
    else:
        with pytest.raises(ValueError, match="number of images"):
            encode(after, sent, examples, terms())


@given(st.integers(3, 8), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_sum_is_the_weighted_mean_to_the_quantisation(sites: int, seed: int) -> None:
    """Beside the plain weighted mean, computed the slow way."""
    asked, rng = terms(sites), np.random.default_rng(seed)
    sent, _ = random_update(rng)
    updates = [
        {n: (a + rng.normal(0, 0.3, a.shape)).astype(a.dtype) for n, a in sent.items()}
        for _ in range(sites)
    ]
    weights = [int(rng.integers(1, 1001)) for _ in range(sites)]
    words = {
        name: encode(update, sent, weight, asked)
        for name, update, weight in zip(asked.roster, updates, weights, strict=True)
    }
    done = Round(participants(asked)).keys().shares().updates(words).signatures().secrets()
    mean, examples = decode(done.total(), asked)
    assert examples == sum(weights)
    after = moved(mean, sent, sent)
    assert list(after) == list(sent)
    for name, array in sent.items():
        slow = sum(
            w * (u[name].astype(float) - array.astype(float)).clip(-1, 1)
            for u, w in zip(updates, weights, strict=True)
        ) / sum(weights) + array.astype(float)
        assert after[name].dtype == array.dtype
        if array.dtype.kind == "i":
            np.testing.assert_array_equal(after[name], np.rint(slow))
        else:
            np.testing.assert_allclose(after[name], slow, atol=1e-6)
    whole = np.sum([w.view(np.int64) for w in words.values()], axis=0)
    np.testing.assert_array_equal(done.total().view(np.int64), whole)  # exact, to the last bit


# --- masks -------------------------------------------------------------------------------------


def test_a_mask_is_added_and_taken_off_again() -> None:
    words = np.arange(100_003, dtype=np.uint64)
    before = words.copy()
    add_mask(words, bytes(32), 1)
    assert (words != before).mean() > 0.99
    add_mask(words, bytes(range(32)), 1)
    add_mask(words, bytes(32), -1)
    add_mask(words, bytes(range(32)), -1)
    np.testing.assert_array_equal(words, before)


@pytest.mark.parametrize("content", ["zeros", "largest", "random"])
def test_a_masked_update_cannot_be_told_from_uniform_words(content: str) -> None:
    """Chi-square over the bytes at each of the 8 places, and over the bits, of 80,000 words.

    With 255 degrees of freedom the statistic is within 150 to 400 but for one case in 10^7.
    """
    asked, size = terms(4), 80_000
    words = {n: np.zeros(size, np.uint64) for n in asked.roster}
    if content == "largest":
        words = {n: np.full(size, 1000 * asked.levels, np.uint64) for n in asked.roster}
    if content == "random":
        words = random_words(asked, size=size // 2)
    masked = Round(participants(asked)).keys().shares().updates(words).masked
    for seen in masked.values():
        seen = seen[:size]
        parts = seen.view(np.uint8).reshape(-1, 8)
        for place in range(8):
            counts = np.bincount(parts[:, place], minlength=256)
            expected = len(seen) / 256
            assert 150 < float(((counts - expected) ** 2 / expected).sum()) < 400
        bits = np.unpackbits(seen.view(np.uint8)).mean()
        assert abs(bits - 0.5) < 6 * 0.5 / np.sqrt(64 * len(seen))
    pairs = itertools.combinations(masked.values(), 2)
    assert all(not np.array_equal(a, b) for a, b in pairs)


def test_masked_updates_of_all_but_one_tell_nothing_of_the_sum() -> None:
    """What is missing of the sum is as random as a mask, whichever site is left out."""
    asked = terms(4)
    words = {n: np.zeros(20_000, np.uint64) for n in asked.roster}
    masked = Round(participants(asked)).keys().shares().updates(words).masked
    for left_out in masked:
        rest = sum((w for n, w in masked.items() if n != left_out), np.zeros(20_000, np.uint64))
        share = (rest < 2**63).mean()
        assert abs(share - 0.5) < 6 * 0.5 / np.sqrt(20_000)


def test_the_same_update_is_masked_anew_in_every_session() -> None:
    asked = terms(4)
    words = random_words(asked)
    one, two = (
        Round(participants(asked, attempt=k)).keys().shares().updates(words).masked for k in (1, 2)
    )
    for name in asked.roster:
        assert (one[name] == two[name]).mean() < 0.01


# --- shares ------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32), st.integers(1, 9), st.integers(0, 5), st.randoms())
@settings(deadline=None)
def test_any_threshold_of_shares_gives_the_secret(
    secret: bytes, threshold: int, more: int, random: Any
) -> None:
    shares = split(secret, threshold, range(1, threshold + more + 1))
    chosen = random.sample(sorted(shares), threshold)
    assert combine({point: shares[point] for point in chosen}) == secret


def test_fewer_shares_fit_every_secret() -> None:
    """For t - 1 shares and any secret there is a polynomial through both: they tell nothing."""
    shares = split(bytes(32), 3, [1, 2, 3])
    for wanted in (0, 1, 2**256 - 1):
        # the value at 3 that makes the quadratic through (1, s1), (2, s2) pass (0, wanted)
        third = (wanted - 3 * shares[1] + 3 * shares[2]) % PRIME
        assert combine({1: shares[1], 2: shares[2], 3: third}) == wanted.to_bytes(32, "big")


def test_shares_of_two_secrets_do_not_mix() -> None:
    one, other = split(bytes(32), 3, [1, 2, 3]), split(b"x" * 32, 3, [1, 2, 3])
    with pytest.raises(ValueError, match="belong together"):
        combine({1: one[1], 2: one[2], 3: other[3]})


# --- terms -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sites", "least"), [(3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (16, 11)])
def test_a_threshold_is_more_than_two_thirds(sites: int, least: int) -> None:
    assert least_threshold(sites) == least
    assert terms(sites, threshold=sites)
    with pytest.raises(ValidationError, match=r"cannot be with|greater than or equal"):
        terms(sites, threshold=least - 1)
    with pytest.raises(ValidationError, match="cannot be with"):
        terms(sites, threshold=sites + 1)


def test_two_sites_are_no_roster_and_no_key_comes_twice() -> None:
    with pytest.raises(ValidationError):
        terms(2, threshold=3)
    key = next(iter(terms().roster.values()))
    with pytest.raises(ValidationError, match="the same key"):
        terms(4, roster={name: key for name in names(4)})


# --- drop-outs ---------------------------------------------------------------------------------

STAGES = ("keys", "shares", "updates", "signatures", "secrets")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("sites", [4, 7])
def test_who_drops_out_costs_only_its_own_part(stage: str, sites: int) -> None:
    """As many go as the threshold allows, at each stage; after the update they are in the sum."""
    asked = terms(sites)
    words = random_words(asked)
    gone = names(sites)[: sites - asked.threshold]
    leaves = {name: gone if name == stage else () for name in STAGES}
    done = (
        Round(participants(asked))
        .keys(leaves["keys"])
        .shares(leaves["shares"])
        .updates(words, leaves["updates"])
        .signatures(leaves["signatures"])
        .secrets(leaves["secrets"])
    )
    inside = asked.roster.keys() - (gone if stage in STAGES[:3] else ())
    expected = np.sum([words[n].view(np.int64) for n in inside], axis=0)
    np.testing.assert_array_equal(done.total().view(np.int64), expected)


def test_sites_may_go_at_every_stage_of_one_round() -> None:
    asked = terms(16)
    words, left = random_words(asked), iter(names(16))
    done = Round(participants(asked)).keys([next(left)]).shares([next(left)])
    done.updates(words, [next(left)]).signatures([next(left)]).secrets([next(left)])
    inside = asked.roster.keys() - set(names(16)[:3])
    expected = np.sum([words[n].view(np.int64) for n in inside], axis=0)
    np.testing.assert_array_equal(done.total().view(np.int64), expected)


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_nothing_is_read(stage: str) -> None:
    asked = terms(4)
    words, gone = random_words(asked), names(4)[:2]
    leaves = {name: gone if name == stage else () for name in STAGES}
    done = Round(participants(asked)).keys(leaves["keys"])
    with pytest.raises((StepRefused, UnmaskingError), match=r"2 sites"):
        done.shares(leaves["shares"]).updates(words, leaves["updates"]).signatures(
            leaves["signatures"]
        ).secrets(leaves["secrets"]).total()


def test_a_sum_of_fewer_than_the_policy_wants_is_refused() -> None:
    asked = terms(4)
    done = Round(participants(asked)).keys().shares().updates(random_words(asked))
    with pytest.raises(StepRefused, match=r"updates of 4 sites; allowed: of at least 5"):
        done.signatures(minimum=5)


# --- noise that is divided ---------------------------------------------------------------------


@pytest.mark.parametrize("honest", [1, 3, 11])
def test_noise_of_the_honest_sites_adds_up(honest: int) -> None:
    rng = np.random.default_rng(honest)
    part = noise_share(2.0, honest)
    total = rng.normal(0, part, (honest, 200_000)).sum(axis=0)
    assert abs(total.std() - 2.0) < 0.02


def test_noise_is_not_divided_among_nobody() -> None:
    with pytest.raises(ValueError, match="0 honest"):
        noise_share(1.0, 0)
