"""Metrics against scikit-learn and SciPy, and the sums' independence of how examples are split."""

import operator
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from plankton_jax import decoding, metrics
from plankton_jax.names import own_decoder
from plankton_jax.taxonomy import Taxonomy

# Three levels: 2 roots, 4 groups, 9 leaves; leaves of a node are not neighbours.
ANCESTORS = np.array(
    [
        [0, 1, 0, 1, 0, 0, 1, 0, 1],
        [0, 1, 2, 3, 0, 2, 1, 0, 3],
        np.arange(9),
    ],
    np.int32,
)
LEVELS = ("root", "group", "taxon")
SIZES = (2, 4, 9)

batch_sums = jax.jit(metrics.batch_sums, static_argnames="decoder")
marginal_logits = jax.jit(lambda logits: metrics.marginal_logits(logits, ANCESTORS))


def _examples(seed: int, count: int = 60, leaves_seen: int = 9, classes_predicted: int = 9):
    """Random logits of three levels; with few leaves some classes are never true or predicted."""
    generator = np.random.default_rng(seed)
    leaf = generator.integers(0, leaves_seen, count).astype(np.int32)
    logits = [generator.normal(0, 2, (count, size)).astype(np.float32) for size in SIZES]
    logits[2][:, classes_predicted:] -= 12
    return tuple(logits), leaf


def _sklearn(logits: np.ndarray, true: np.ndarray) -> dict[str, float]:
    size = logits.shape[1]
    predicted = logits.argmax(1)
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # predicted classes without support
        averages = {
            average: sklearn.metrics.precision_recall_fscore_support(
                true, predicted, average=average, zero_division=0
            )
            for average in ("macro", "weighted")
        }
        return {
            "micro_accuracy": sklearn.metrics.accuracy_score(true, predicted),
            "macro_accuracy": sklearn.metrics.balanced_accuracy_score(true, predicted),
            "macro_f1": averages["macro"][2],
            "weighted_f1": averages["weighted"][2],
            "macro_precision": averages["macro"][0],
            "macro_recall": averages["macro"][1],
            "top5_accuracy": sklearn.metrics.top_k_accuracy_score(
                true, logits, k=5, labels=np.arange(size)
            )
            if size > 2
            else 1.0,
            "log_loss": sklearn.metrics.log_loss(true, probabilities, labels=np.arange(size)),
        }


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_every_metric_of_every_level_equals_scikit_learn(seed, leaves_seen, classes_predicted):
    logits, leaf = _examples(seed, 60, leaves_seen, classes_predicted)
    sums = batch_sums(logits, leaf, np.ones(len(leaf), bool), ANCESTORS)
    on_device = metrics.level_metrics(sums, LEVELS)
    on_host = metrics.level_metrics(metrics.host_sums(logits, leaf, ANCESTORS), LEVELS)
    assert [level["name"] for level in on_device] == list(LEVELS)
    for number, scores in enumerate(logits):
        expected = _sklearn(scores, ANCESTORS[number][leaf])
        for found in (on_device[number], on_host[number]):
            assert set(found) == {"name", *metrics.METRIC_NAMES}
            for name, value in expected.items():
                assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


@given(st.integers(0, 1000))
def test_sums_do_not_depend_on_the_batches(seed):
    logits, leaf = _examples(seed, 60)
    generator = np.random.default_rng(seed)
    mask = generator.random(60) < 0.8
    whole = batch_sums(logits, leaf, mask, ANCESTORS)
    total = metrics.zero_sums(ANCESTORS)
    for rows in generator.permutation(60).reshape(6, 10):
        part = tuple(level[rows] for level in logits)
        part = batch_sums(part, leaf[rows], mask[rows], ANCESTORS)
        total = jax.tree.map(operator.add, total, part)
    kept = metrics.host_sums(tuple(level[mask] for level in logits), leaf[mask], ANCESTORS)
    for name in ("confusion", "top5_correct", "count"):
        for one, two, three in zip(
            *(jax.tree.leaves(sums[name]) for sums in (whole, total, kept)), strict=True
        ):
            np.testing.assert_array_equal(one, two)
            np.testing.assert_array_equal(one, three)
            assert one.dtype == jnp.int32
    np.testing.assert_allclose(whole["log_loss"], total["log_loss"], rtol=1e-5)
    np.testing.assert_allclose(whole["log_loss"], kept["log_loss"], rtol=1e-5)


@pytest.mark.parametrize("head", ["linear", "bacnn", "sbacnn", "coherent"])
def test_validation_decodes_as_evaluation_does(head):
    decoder = own_decoder(head)
    logits, leaf = _examples(1)
    names = tuple(tuple(map(str, range(size))) for size in SIZES)
    decoded = decoding.decode(decoder, logits, Taxonomy(LEVELS, names, ANCESTORS))
    assert (decoder == "argmax") == (decoded == decoding.decode("argmax", logits, None)).all()
    found = batch_sums(logits, leaf, np.ones(60, bool), ANCESTORS, decoder=decoder)
    expected = metrics.host_sums(logits, leaf, ANCESTORS, decoded)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5)


def test_a_decoder_that_no_head_has_is_a_mistake():
    assert own_decoder(lambda: None) == "argmax"
    with pytest.raises(ValueError, match="of no head"):
        batch_sums(*_examples(1), np.ones(60, bool), ANCESTORS, decoder="path")


def test_two_devices_count_what_one_counts():
    if jax.device_count() < 2:
        pytest.skip("needs two (virtual) devices")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    logits, leaf = _examples(0)
    mask = np.arange(60) < 57
    one = batch_sums(logits, leaf, mask, ANCESTORS)
    two = batch_sums(*jax.device_put((logits, leaf, mask), split), ANCESTORS)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


def test_padding_counts_for_nothing_whatever_it_holds():
    logits, leaf = _examples(3, 10)
    mask = np.arange(10) < 6
    padded = tuple(np.where(mask[:, None], level, np.nan) for level in logits)
    strange = np.where(mask, leaf, -7).astype(np.int32)
    found = batch_sums(padded, strange, mask, ANCESTORS)
    expected = metrics.host_sums(tuple(level[:6] for level in logits), leaf[:6], ANCESTORS)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5)


def test_ties_are_broken_alike_on_device_and_host():
    logits = tuple(np.zeros((9, size), np.float32) for size in SIZES)
    leaf = np.arange(9, dtype=np.int32)
    for sums in (
        batch_sums(logits, leaf, np.ones(9, bool), ANCESTORS),
        metrics.host_sums(logits, leaf, ANCESTORS),
    ):
        assert int(sums["top5_correct"][2]) == 5
        assert int(np.trace(sums["confusion"][2])) == 1


def test_a_logit_that_is_not_a_number_is_not_a_success():
    logits = tuple(np.full((1, size), np.nan, np.float32) for size in SIZES)
    leaf = np.array([4], np.int32)
    for sums in (
        batch_sums(logits, leaf, np.ones(1, bool), ANCESTORS),
        metrics.host_sums(logits, leaf, ANCESTORS),
    ):
        assert int(sums["top5_correct"][2]) == 0
        assert np.isnan(float(sums["log_loss"][2]))


def test_no_examples_give_no_numbers():
    found = metrics.level_metrics(jax.device_get(metrics.zero_sums(ANCESTORS)), LEVELS)
    assert all(np.isnan(level[name]) for level in found for name in metrics.METRIC_NAMES)


@given(st.integers(0, 1000), st.sampled_from([1.0, 50.0, 1e4]))
def test_marginals_equal_scipy_and_sum_to_one(seed, scale):
    logits = np.random.default_rng(seed).normal(0, scale, (4, 9)).astype(np.float32)
    found = marginal_logits(logits)
    log_probabilities = scipy.special.log_softmax(logits.astype(np.float64), axis=1)
    for level, nodes, size in zip(found[:-1], ANCESTORS[:-1], SIZES[:-1], strict=True):
        expected = [
            scipy.special.logsumexp(log_probabilities[:, nodes == node], axis=1)
            for node in range(size)
        ]
        np.testing.assert_allclose(level, np.transpose(expected), rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(np.exp(level).sum(1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(found[-1], logits)


def test_marginals_have_the_gradient_of_a_group_of_a_softmax():
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 3, (1, 9)), jnp.float32)
    gradient = jax.grad(lambda z: metrics.marginal_logits(z, ANCESTORS)[1][0, 2])(logits)
    probabilities = scipy.special.softmax(np.asarray(logits, np.float64), axis=1)
    within = np.where(ANCESTORS[1] == 2, probabilities, 0)
    np.testing.assert_allclose(gradient, within / within.sum() - probabilities, atol=1e-6)


def test_an_impossible_group_has_probability_zero_and_no_nan():
    logits = jnp.where(jnp.asarray(ANCESTORS[:1] == 1), -jnp.inf, jnp.zeros((1, 9)))
    coarse = metrics.marginal_logits(logits, ANCESTORS)[0]
    np.testing.assert_allclose(coarse, [[0.0, -np.inf]], atol=1e-6)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_interval_equals_scipy(confidence):
    pairs = [(s, n) for n in (1, 2, 3, 10, 39, 1000, 300_000) for s in {0, 1, n // 3, n - 1, n}]
    low, high = metrics.wilson_interval(*np.transpose(pairs), confidence=confidence)
    for (successes, trials), *found in zip(pairs, low, high, strict=True):
        test = scipy.stats.binomtest(int(successes), int(trials))
        expected = test.proportion_ci(confidence, method="wilson")
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_wilson_interval_equals_published_numbers():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    low, high = metrics.wilson_interval([81, 15, 0, 1], [263, 148, 20, 29])
    np.testing.assert_allclose(low, [0.2553, 0.0624, 0.0, 0.0061], atol=5e-5)
    np.testing.assert_allclose(high, [0.3662, 0.1605, 0.1611, 0.1718], atol=5e-5)


def test_wilson_interval_without_trials_says_nothing():
    assert metrics.wilson_interval(0, 0) == (0.0, 1.0)


def test_class_metrics_equal_scikit_learn():
    logits, leaf = _examples(5, 80, leaves_seen=6, classes_predicted=8)
    confusion = metrics.host_sums(logits, leaf, ANCESTORS)["confusion"][2]
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        leaf, logits[2].argmax(1), labels=np.arange(9), zero_division=0
    )
    found = metrics.class_metrics(confusion)
    np.testing.assert_allclose(found["precision"], precision)
    np.testing.assert_allclose(found["recall"], recall)
    np.testing.assert_allclose(found["f1"], f1)
    np.testing.assert_array_equal(found["support"], support)
