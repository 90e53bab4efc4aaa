"""Properties of the samplers: resumable, shared among hosts, complete, of the right frequencies."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from plankton_jax.data.counter import mix64, random_bits, stream_key, to_unit
from plankton_jax.data.sampling import RepeatFactorSampler, UniformSampler, WeightedSampler, capped
from plankton_jax.errors import UserError

LEAF = np.repeat(np.arange(6, dtype=np.int32), [500, 120, 60, 0, 7, 1])[
    np.random.default_rng(0).permutation(688)
]
ROWS = np.arange(0, 688, 2)


def samplers(seed):
    return (
        UniformSampler(ROWS, seed),
        WeightedSampler(ROWS, LEAF, 6, seed),
        WeightedSampler(ROWS, LEAF, 6, seed, weights=1.0 + ROWS % 5),
        RepeatFactorSampler(ROWS, LEAF, 6, seed, threshold=0.3),
    )


def test_mixing_is_splitmix64():
    # The first outputs of the published generator from the seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    state = (1234567 + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).astype("u8")
    assert mix64(state).tolist() == expected


def test_random_bits_are_uniform_and_uncorrelated():
    bits = to_unit(random_bits(stream_key(3, "test"), np.arange(50_000, dtype=np.uint64), 4))
    for column in bits.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    correlations = np.corrcoef(np.vstack([bits.T, np.roll(bits[:, 0], 1)]))
    assert np.abs(correlations - np.eye(5)).max() < 0.02


@given(st.integers(0, 2**63), st.integers(0, 10**12), st.integers(1, 200))
@settings(deadline=None)
def test_resume_at_any_point_gives_the_same_stream(seed, start, length):
    for sampler, again in zip(samplers(seed), samplers(seed), strict=True):
        positions = np.arange(start, start + length)
        whole = sampler(positions)
        cut = length // 3
        resumed = np.concatenate([again(positions[:cut]), again(positions[cut:])])
        np.testing.assert_array_equal(resumed, whole)
        one_by_one = [int(again(np.array([position]))[0]) for position in positions[:3]]
        assert one_by_one == whole[:3].tolist()


@given(st.integers(0, 2**30), st.integers(1, 8))
@settings(deadline=None)
def test_hosts_draw_together_what_one_would(seed, hosts):
    for sampler in samplers(seed):
        positions = np.arange(5 * 840, 6 * 840)
        streams = [sampler(positions[host::hosts]) for host in range(hosts)]
        together = np.empty(len(positions), np.int64)
        for host, stream in enumerate(streams):
            together[host::hosts] = stream
        np.testing.assert_array_equal(together, sampler(positions))


@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 10**6))
@settings(deadline=None)
def test_an_epoch_has_every_row_once(count, seed, epoch):
    rows = np.arange(count) * 3 + 7
    drawn = UniformSampler(rows, seed)(np.arange(epoch * count, (epoch + 1) * count))
    np.testing.assert_array_equal(np.sort(drawn), rows)


def test_epochs_and_seeds_give_different_orders():
    orders = {
        tuple(UniformSampler(ROWS, seed)(np.arange(344 * epoch, 344 * (epoch + 1))).tolist())
        for seed, epoch in itertools.product(range(5), range(20))
    }
    assert len(orders) == 100


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_small_permutations_are_equally_likely(count):
    epochs = 200 * len(list(itertools.permutations(range(count))))
    drawn = UniformSampler(np.arange(count), 11)(np.arange(epochs * count)).reshape(epochs, count)
    _, frequencies = np.unique(drawn, axis=0, return_counts=True)
    assert len(frequencies) * 200 == epochs
    assert stats.chisquare(frequencies).pvalue > 1e-3


def test_every_row_is_equally_likely_at_every_place():
    drawn = UniformSampler(np.arange(50), 2)(np.arange(50 * 4000)).reshape(4000, 50)
    places = np.zeros((50, 50))
    for place in range(50):
        places[place] = np.bincount(drawn[:, place], minlength=50)
    assert stats.chisquare(places, axis=None).pvalue > 1e-3
    neighbours = np.bincount((drawn[:, 1:] - drawn[:, :-1]).ravel() % 50, minlength=50)[1:]
    assert stats.chisquare(neighbours).pvalue > 1e-3


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 1.5])
def test_weighted_frequencies(power):
    sampler = WeightedSampler(ROWS, LEAF, 6, 5, power)
    drawn = sampler(np.arange(60_000))
    assert np.isin(drawn, ROWS).all()
    counts = np.bincount(LEAF[ROWS], minlength=6)
    weights = np.where(counts > 0, 1.0 / np.maximum(counts, 1) ** power, 0)[LEAF[ROWS]]
    expected = weights / weights.sum() * len(drawn)
    observed = np.bincount(drawn, minlength=688)[ROWS]
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    by_class = np.bincount(LEAF[ROWS], expected, minlength=6)
    present = counts > 0
    found = np.bincount(LEAF[drawn], minlength=6)
    assert not found[~present].any()
    assert stats.chisquare(found[present], by_class[present]).pvalue > 1e-3


def test_weighted_draws_do_not_repeat_from_epoch_to_epoch():
    sampler = WeightedSampler(ROWS, LEAF, 6, 5)
    first, second = sampler(np.arange(344)), sampler(np.arange(344, 688))
    assert (first != second).mean() > 0.7


def test_samplers_need_rows():
    for make in (
        lambda: UniformSampler(np.array([], np.int64), 0),
        lambda: WeightedSampler(np.array([], np.int64), LEAF, 6, 0),
    ):
        with pytest.raises(UserError, match="at least 1"):
            make()


def test_weights_of_examples_decide_within_their_class():
    weights = np.where(ROWS % 6 == 0, 0.0, 1.0 + ROWS % 3)
    sampler = WeightedSampler(ROWS, LEAF, 6, 3, power=0.5, weights=weights)
    drawn = np.bincount(sampler(np.arange(400_000)), minlength=688)[ROWS]
    counts = np.bincount(LEAF[ROWS], minlength=6)
    mass = np.bincount(LEAF[ROWS], weights=weights, minlength=6)
    shares = np.sqrt(counts) / np.sqrt(counts).sum()
    expected = shares[LEAF[ROWS]] * weights / mass[LEAF[ROWS]] * 400_000
    assert (drawn[weights == 0] == 0).all()
    seen = weights > 0
    assert stats.chisquare(drawn[seen], expected[seen]).pvalue > 1e-3
    with pytest.raises(UserError, match="weigh 0"):
        WeightedSampler(ROWS, LEAF, 6, 3, weights=np.zeros(len(ROWS)))
    with pytest.raises(UserError, match=r"classes of number 2 \(1 classes\) weigh 0"):
        WeightedSampler(ROWS, LEAF, 6, 3, weights=np.where(LEAF[ROWS] == 2, 0.0, 1.0))


@pytest.mark.parametrize("power", [-300.0, 0.0, 1.0, 300.0])
def test_no_power_overflows(power):
    leaf = np.repeat([0, 1, 2], [100_000, 1_000, 3])
    sampler = WeightedSampler(np.arange(len(leaf)), leaf, 3, 0, power=power)
    counts = np.array([100_000, 1_000, 3])
    logs = (1 - power) * np.log(counts)
    shares = np.exp(logs - logs.max())
    found = np.bincount(leaf[sampler(np.arange(3_000))], minlength=3) / 3_000
    np.testing.assert_allclose(found, shares / shares.sum(), atol=0.04)


@given(st.floats(0, 0.5), st.integers(0, 2**40), st.integers(0, 1000))
@settings(deadline=None)
def test_rare_classes_are_repeated_by_their_factor(threshold, seed, epoch):
    sampler = RepeatFactorSampler(ROWS, LEAF, 6, seed, threshold)
    drawn = sampler(np.arange(epoch * len(sampler), (epoch + 1) * len(sampler)))
    times = np.bincount(drawn, minlength=688)[ROWS]
    counts = np.bincount(LEAF[ROWS], minlength=6)
    for leaf in np.flatnonzero(counts):
        factor = max(1.0, np.sqrt(threshold * len(ROWS) / counts[leaf]))
        found = times[LEAF[ROWS] == leaf]
        assert set(found) <= {int(factor), int(factor) + 1}
        assert abs(found.sum() - factor * counts[leaf]) <= 0.5 + 1e-6
    assert len(sampler) == times.sum()


def test_what_comes_once_more_changes_from_epoch_to_epoch():
    sampler = RepeatFactorSampler(ROWS, LEAF, 6, 0, 0.3)
    epochs = sampler(np.arange(30 * len(sampler))).reshape(30, -1)
    rows = ROWS[LEAF[ROWS] == 1]
    times = np.stack([np.bincount(epoch, minlength=688)[rows] for epoch in epochs])
    assert (times.max(axis=0) > times.min(axis=0)).all()


@given(st.integers(1, 50), st.integers(0, 2**32))
def test_a_capped_class_keeps_the_same_examples_when_it_grows(cap, seed):
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 1 << 64, 300, dtype=np.uint64)
    leaf = random.integers(0, 4, 300)
    kept = capped(hashes, leaf, cap)
    assert (np.diff(kept) > 0).all()
    totals = np.bincount(leaf, minlength=4)
    assert np.bincount(leaf[kept], minlength=4).tolist() == np.minimum(totals, cap).tolist()
    fewer = capped(hashes[:250], leaf[:250], cap)
    lost = set(fewer) - set(kept)
    for row in lost:  # pushed out by one with a smaller hash, never by chance
        rivals = hashes[kept][leaf[kept] == leaf[row]]
        assert hashes[row] > rivals.max()
