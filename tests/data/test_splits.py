"""Properties of the splits: stable, order-free, of the right shares, complete."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plankton_jax.data.splits import PARTS, class_counts, split_rows
from plankton_jax.errors import UserError

random = np.random.default_rng(0)
HASHES = random.integers(0, 1 << 64, 20_000, dtype=np.uint64)
LEAF = (random.random(20_000) ** 6 * 40).astype(np.int32)

FRACTIONS = st.tuples(*[st.integers(0, 10)] * 3).filter(lambda w: sum(w) > 0)


def as_shares(weights):
    return tuple(weight / sum(weights) for weight in weights)


def parts_of(rows, count):
    part = np.full(count, -1)
    for number, name in enumerate(PARTS):
        assert (part[rows[name]] == -1).all() and (np.diff(rows[name]) > 0).all()
        part[rows[name]] = number
    assert (part >= 0).all()
    return part


@pytest.mark.parametrize("method", ["hash", "stratified"])
@given(weights=FRACTIONS, seed=st.integers(0, 2**40))
@settings(max_examples=30, deadline=None)
def test_every_row_is_in_one_part_and_order_does_not_matter(method, weights, seed):
    shares = as_shares(weights)
    part = parts_of(split_rows(HASHES[:999], LEAF[:999], shares, seed, method), 999)
    order = np.random.default_rng(seed).permutation(999)
    shuffled = split_rows(HASHES[:999][order], LEAF[:999][order], shares, seed, method)
    np.testing.assert_array_equal(parts_of(shuffled, 999), part[order])
    assert not set(np.unique(part)) & {k for k, share in enumerate(shares) if share == 0}


def test_hash_split_is_stable_when_data_grows():
    small = parts_of(split_rows(HASHES[:5000], LEAF[:5000]), 5000)
    large = parts_of(split_rows(HASHES, LEAF), len(HASHES))
    np.testing.assert_array_equal(large[:5000], small)


def test_hash_split_has_the_shares_and_seeds_are_independent():
    first = parts_of(split_rows(HASHES, LEAF, seed=0), len(HASHES))
    second = parts_of(split_rows(HASHES, LEAF, seed=1), len(HASHES))
    expected = len(HASHES) * np.array([0.6, 0.2, 0.2])
    assert stats.chisquare(np.bincount(first), expected).pvalue > 1e-3
    crossed = np.histogram2d(first, second, bins=3)[0]
    assert stats.chi2_contingency(crossed).pvalue > 1e-3


def test_the_hash_is_that_of_the_seed_not_the_id_alone():
    # An id hash that is small must not always train: the seed is mixed in.
    parts = {
        parts_of(split_rows(np.zeros(1, np.uint64), LEAF[:1], seed=s), 1)[0] for s in range(30)
    }
    assert parts == {0, 1, 2}


@given(
    totals=st.lists(st.integers(0, 40), min_size=1, max_size=20),
    weights=FRACTIONS,
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_stratified_classes_reach_every_part_they_can(totals, weights, seed):
    leaf = np.repeat(np.arange(len(totals)), totals)
    hashes = HASHES[: len(leaf)]
    shares = as_shares(weights)
    rows = split_rows(hashes, leaf, shares, seed, "stratified")
    parts_of(rows, len(leaf))
    counts = np.stack([class_counts(leaf, rows[name], len(totals)) for name in PARTS], axis=1)
    np.testing.assert_array_equal(counts.sum(axis=1), totals)
    wanted = [part for part in (0, 2, 1) if shares[part] > 0]
    for total, found in zip(totals, counts, strict=True):
        assert (found[wanted[:total]] >= 1).all()
        if total >= 3 / min(share for share in shares if share > 0):
            assert (np.abs(found - total * np.array(shares)) < 1 + 1e-6).all()


@pytest.mark.parametrize(
    ("total", "expected"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (10, [6, 2, 2])]
)
def test_stratified_small_classes(total, expected):
    rows = split_rows(HASHES[:total], np.zeros(total, np.int32), method="stratified")
    assert [len(rows[name]) for name in PARTS] == expected


def test_official_split_is_taken_and_lends_a_validation_part():
    official = np.repeat(np.array([0, 1, 2], np.int8), [600, 100, 300])
    rows = split_rows(HASHES[:1000], LEAF[:1000], method="official", official=official)
    np.testing.assert_array_equal(parts_of(rows, 1000), official)
    two = np.where(official == 1, 0, official)
    rows = split_rows(HASHES[:1000], LEAF[:1000], method="official", official=two)
    np.testing.assert_array_equal(rows["test"], np.arange(700, 1000))
    assert stats.binomtest(len(rows["validation"]), 700, 0.25).pvalue > 1e-3
    rows = split_rows(HASHES[:1000], LEAF[:1000], (0.8, 0, 0.2), 0, "official", two)
    assert len(rows["validation"]) == 0


def test_bad_settings_are_named_together():
    with pytest.raises(UserError) as raised:
        split_rows(HASHES, LEAF, (0.6, 0.6, 0.2), method="stratifed")
    assert len(raised.value.problems) == 2
    assert "stratified" in raised.value.problems[0] and "fractions" in raised.value.problems[1]
    for fractions in ((1, 0), (1.2, -0.2, 0), (float("nan"), 0.5, 0.5)):
        with pytest.raises(UserError):
            split_rows(HASHES, LEAF, fractions)
    for official in (None, np.full(len(HASHES), -1, np.int8)):
        with pytest.raises(UserError, match="no official part"):
            split_rows(HASHES, LEAF, method="official", official=official)


@pytest.mark.parametrize("method", ["hash", "stratified"])
def test_millions_of_rows_take_seconds_at_most(method):
    hashes = np.random.default_rng(0).integers(0, 1 << 64, 3_560_000, dtype=np.uint64)
    leaf = (hashes % 103).astype(np.int32)
    start = time.process_time()
    split_rows(hashes, leaf, method=method)
    assert time.process_time() - start < 4
