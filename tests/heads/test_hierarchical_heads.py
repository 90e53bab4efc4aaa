"""Hierarchical heads: forward passes against NumPy, who sends gradients to whom, bad input."""

import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from plankton_jax import command, heads, models
from plankton_jax.config import HeadConfig
from plankton_jax.errors import UserError
from plankton_jax.heads.branches import bilinear_pool, tap_indices
from plankton_jax.heads.coupling import BranchAttention
from plankton_jax.models import branch_bases
from plankton_jax.models.features import Features
from plankton_jax.taxonomy import Taxonomy

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
TREE = Taxonomy.from_paths(
    ("side", "group", "taxon"),
    [
        ("a", "a1", "x"),
        ("b", "b1", "p"),
        ("a", "a1", "y"),
        ("a", "a2", "z"),
        ("b", "b2", "q"),
        ("b", "b2", "r"),
    ],
)
THREE_SIDES = Taxonomy.from_paths(
    ("side", "taxon"), [("a", "x"), ("b", "p"), ("c", "u"), ("c", "v"), ("a", "y"), ("b", "q")]
)
BACKBONE = types.SimpleNamespace(
    stage_dims=(4, 6, 5), stage_sides=(4, 2, 1), strides=(2, 4, 8), feature_dim=9
)
NAMES = ("bcnn", "hbcnn", "bacnn", "add", "concat", "sbacnn")


def make(name, tree=TREE, backbone=BACKBONE, scramble=True, **settings):
    """A head whose every array is random, batch-norm statistics too."""
    settings = {"branches": "dense", "width": 7, "attention_width": 3} | settings
    config = HeadConfig(**settings)
    head = heads.configured(name, config)(
        backbone, tree.num_leaves, taxonomy=tree, rngs=nnx.Rngs(0)
    )
    if scramble:
        graph, state = nnx.split(head)
        random = np.random.default_rng(3)

        def draw(path, value):
            drawn = random.normal(0, 0.4, value.shape)
            drawn = np.abs(drawn) + 0.5 if "var" in str(path[-1]) + str(path[-2]) else drawn
            return jnp.asarray(drawn, jnp.float32)

        head = nnx.merge(graph, jax.tree_util.tree_map_with_path(draw, state))
    return head


@pytest.fixture
def features():
    random = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    sizes = zip(BACKBONE.stage_dims, BACKBONE.stage_sides, strict=True)
    stages = tuple(draw(8, side, side, width) for width, side in sizes)
    return Features(stages, pooled=draw(8, 9))


# ---- the same in NumPy ---------------------------------------------------------------------------


def array(value):
    return np.asarray(value[...], np.float64)


def active(layer, x):
    return np.maximum(x @ array(layer.linear.kernel) + array(layer.linear.bias), 0)


def normalised(layer, x):
    x = (x - array(layer.bn.mean)) / np.sqrt(array(layer.bn.variance) + 1e-3)
    return x * array(layer.bn.scale) + array(layer.bn.bias)


def dense_layers(layers, x):
    for layer in (layers.first, layers.second):
        x = normalised(layer, active(layer, x))
    return x


def chained(head, vectors, join):
    """Every branch joined to those before it, in front of its last batch norm."""
    joined, read = None, []
    for layers, x in zip(head.dense, vectors, strict=True):
        own = active(layers.second, normalised(layers.first, active(layers.first, x)))
        joined = own if joined is None else join(own, joined)
        read.append(normalised(layers.second, joined))
    return read


def logit_layer(layer, x):
    return x @ array(layer.kernel) + array(layer.bias)


def flat(features, tap):
    x = np.asarray(features.stages[tap], np.float64)
    return x.reshape(len(x), -1)


def attend(attention, branches, first=False):
    """With the pairs' two layers one after the other, image by image."""
    count = len(branches)
    heard = np.zeros_like(np.stack(branches, axis=1))
    weights = np.zeros((len(branches[0]), count, count))
    for image in range(len(branches[0])):
        for i in range(count):
            scores = []
            for j in range(count):
                hidden = branches[j][image] @ array(attention.hidden_kernel)[i, j]
                hidden = hidden + array(attention.hidden_bias)[i, j]
                score = hidden @ array(attention.score_kernel)[i, j]
                scores.append(score + array(attention.score_bias)[i, j])
            weights[image, i] = np.exp(scores) / np.exp(scores).sum()
    if first:
        weights[:] = weights[0]
    for image in range(len(branches[0])):
        for i in range(count):
            heard[image, i] = sum(weights[image, i, j] * branches[j][image] for j in range(count))
    return [heard[:, i] for i in range(count)], weights


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def reference(name, head, features, **settings):
    vectors = [flat(features, tap) for tap in (0, 1, 2)]
    if settings.get("trunk"):
        vectors[-1] = np.asarray(features.pooled, np.float64)
    if name in ("bcnn", "hbcnn"):
        default = ((0,), (0, 1), (0, 1, 2)) if name == "hbcnn" else ((0,), (1,), (2,))
        pattern = settings.get("connections", default)
        read = [np.concatenate([vectors[j] for j in sources], axis=1) for sources in pattern]
        read = [
            dense_layers(head.dense[i], x) if i < len(head.dense) else x for i, x in enumerate(read)
        ]
    elif name == "add":
        read = chained(head, vectors, lambda own, before: own + before)
    elif name == "concat":
        read = chained(head, vectors, lambda own, before: np.concatenate((own, before), axis=1))
    else:
        branches = [dense_layers(layers, x) for layers, x in zip(head.dense, vectors, strict=True)]
        heard, _ = attend(head.attention, branches, settings.get("attention") == "batch0")
        read = [np.concatenate(pair, axis=1) for pair in zip(branches, heard, strict=True)]
    return [logit_layer(layer, x) for layer, x in zip(head.logits, read, strict=True)]


def assert_close(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == jnp.float32
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bcnn", {}),
        ("bcnn", {"branch_widths": (3, 4, 5)}),
        ("bcnn", {"branch_widths": (3, 4), "trunk": True}),
        ("hbcnn", {"branch_widths": (3, 4, 5)}),
        ("hbcnn", {"connections": ((0, 2), (1,), (2, 1))}),
        ("bacnn", {}),
        ("bacnn", {"attention": "batch0"}),
        ("add", {}),
        ("concat", {}),
        ("concat", {"branch_widths": (3, 4, 5)}),
    ],
)
def test_a_forward_pass_is_the_reference_s(name, settings, features):
    head = make(name, **settings)
    assert_close(head(features), reference(name, head, features, **settings))


def test_sbacnn_is_a_gate_and_two_sides_under_one_attention(features):
    head = make("sbacnn")
    vectors = [flat(features, tap) for tap in (0, 1, 2)]
    gate = logit_layer(head.gate, dense_layers(head.gate_dense, vectors[0]))
    branches = [dense_layers(head.dense[n], vectors[1 + n % 2]) for n in range(4)]
    heard, weights = attend(head.attention, branches)
    read = [np.concatenate(pair, axis=1) for pair in zip(branches, heard, strict=True)]
    own = [log_softmax(logit_layer(head.logits[n], read[n])) for n in range(4)]
    # By name: a's groups a1, a2 and taxa x, y, z; b's groups b1, b2 and taxa p, q, r.
    columns = {
        1: {"a1": (0, 0), "a2": (0, 1), "b1": (2, 0), "b2": (2, 1)},
        2: {"x": (1, 0), "y": (1, 1), "z": (1, 2), "p": (3, 0), "q": (3, 1), "r": (3, 2)},
    }
    within = [gate]
    for level, places in columns.items():
        names = TREE.node_names[level]
        within.append(np.stack([own[places[n][0]][:, places[n][1]] for n in names], axis=1))
    together = [gate] + [
        level + np.stack([log_softmax(gate)[:, int(places[n][0] >= 2)] for n in names], axis=1)
        for level, places, names in zip(
            within[1:], columns.values(), TREE.node_names[1:], strict=True
        )
    ]
    assert_close(head(features), together)
    np.testing.assert_allclose(head.attention_weights(features), weights, atol=1e-5)
    for level in head(features)[1:]:
        np.testing.assert_allclose(np.exp(level).sum(axis=1), 1, rtol=1e-5)
    for level in head(features, train=True)[1:]:  # without a key there is no dropout
        np.testing.assert_allclose(np.exp(np.asarray(level)).sum(axis=1), 1, rtol=1e-5)


def test_the_gate_learns_from_its_own_level_alone(features):
    """The cross-entropy of a lower level has the gradient of the true side's own branch."""
    head = make("sbacnn")
    taxa = np.array([TREE.leaf_names.index(name) for name in "xypqxrzx"])
    sides = TREE.ancestors[0][taxa]
    graph, params, rest = nnx.split(head, nnx.Param, ...)

    def leaves(params):
        return nnx.merge(graph, params, rest, copy=True)(features, train=True)[2]

    def together(params):
        return -jnp.mean(jax.nn.log_softmax(leaves(params))[jnp.arange(8), taxa])

    def own_branch(params):
        log = leaves(params)
        same = jnp.asarray(TREE.ancestors[0][None] == sides[:, None])
        log = jax.nn.log_softmax(jnp.where(same, log, -jnp.inf))
        return -jnp.mean(log[jnp.arange(8), taxa])

    found, expected = jax.grad(together)(params), jax.grad(own_branch)(params)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
        if "gate" in jax.tree_util.keystr(path):
            assert not np.asarray(one).any()


def test_sbacnn_takes_any_number_of_sides(features):
    head = make("sbacnn", THREE_SIDES, taps=(1, 2))
    logits = head(features)
    assert [level.shape for level in logits] == [(8, 3), (8, 6)]
    probabilities = np.exp(np.asarray(logits[1]))
    gate = np.exp(log_softmax(np.asarray(logits[0], np.float64)))
    for side, taxa in enumerate(("xy", "pq", "uv")):
        places = [THREE_SIDES.leaf_names.index(taxon) for taxon in taxa]
        np.testing.assert_allclose(probabilities[:, places].sum(1), gate[:, side], rtol=1e-4)


def test_the_coherent_head_cannot_contradict_itself(features):
    head = heads.find("coherent")(BACKBONE, 6, taxonomy=TREE, rngs=nnx.Rngs(0))
    for train in (False, True):
        levels = head(features, train=train)
        probabilities = [np.asarray(jax.nn.softmax(level)) for level in levels]
        leaves = probabilities[-1]
        for level in range(3):
            for node in range(len(TREE.node_names[level])):
                below = leaves[:, TREE.leaves_under(level, node)].sum(axis=1)
                np.testing.assert_allclose(probabilities[level][:, node], below, rtol=1e-5)


# ---- properties ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sample", "batch0"])
@pytest.mark.parametrize("name", ["bacnn", "sbacnn"])
def test_permuting_the_batch_permutes_the_outputs(name, attention, features):
    """It fails for batch0, on purpose: there every image depends on the batch's first."""
    head = make(name, attention=attention)
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    turned = jax.tree.map(lambda x: x[order], features)
    same = all(
        np.allclose(a[order], b, atol=1e-5)
        for a, b in zip(head(features), head(turned), strict=True)
    )
    assert same == (attention == "sample")


@pytest.mark.parametrize("name", ["bcnn", "hbcnn", "add", "concat"])
def test_the_other_heads_look_at_one_image_at_a_time(name, features):
    head = make(name)
    alone = jax.tree.map(lambda x: x[5:6], features)
    for whole, one in zip(head(features), head(alone), strict=True):
        np.testing.assert_allclose(whole[5:6], one, atol=1e-5)


def _gradient(head, features, objective):
    graph, params, rest = nnx.split(head, nnx.Param, ...)
    gradient = jax.grad(lambda p: objective(nnx.merge(graph, p, rest)(features)))(params)
    flat = jax.tree_util.tree_leaves_with_path(gradient)
    return {jax.tree_util.keystr(path): float(jnp.abs(value).max()) for path, value in flat}


def test_a_side_sends_no_gradient_into_the_other(features):
    head = make("sbacnn")
    # The logits of side a's own nodes, relative to each other: its branch's word alone.
    columns = [TREE.node_names[2].index(name) for name in "xyz"]

    def of_side_a(logits):
        own = jax.nn.log_softmax(logits[2][:, jnp.array(columns)], axis=-1)
        return jnp.sum(own[:, 0] ** 2)

    gradient = _gradient(head, features, of_side_a)
    # What reaches the gate is rounding: its word on the side is the same for all three.
    moved = {path for path, size in gradient.items() if size > 1e-5 * max(gradient.values())}
    assert any(path.startswith("['dense'][1]") for path in moved)
    assert any(path.startswith("['dense'][0]") for path in moved)  # its own coarser branch
    for other in ("['dense'][2]", "['dense'][3]", "['gate", "['logits'][2]", "['logits'][3]"):
        assert not any(path.startswith(other) for path in moved)
    # It listens all the same: another branch's features change what it says.
    louder = jax.tree.map(lambda x: x, features)
    scores = np.asarray(head.attention_weights(louder))
    assert (scores[:, 1, 2:] > 0).all()


def test_attention_of_foreign_branches_is_heard_without_gradient():
    branches = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)
    foreign = np.array([[False, False, True], [False, False, True], [True, True, False]])
    attention = BranchAttention(3, 4, 5, foreign=foreign, rngs=nnx.Rngs(0))
    plain = BranchAttention(3, 4, 5, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(attention(branches)[0], plain(branches)[0])
    gradient = jax.grad(lambda b: jnp.sum(attention(b)[0][:, 0] ** 2))(branches)
    assert (np.asarray(gradient)[:, 2] == 0).all() and (np.asarray(gradient)[:, :2] != 0).all()


def test_bilinear_pooling_is_that_of_the_paper():
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4))
    for image, found in zip(x, bilinear_pool(jnp.asarray(x, jnp.float32)), strict=True):
        total = sum(np.outer(place, place) for place in image.reshape(-1, 4)).reshape(-1)
        rooted = np.sign(total) * np.sqrt(np.abs(total))
        np.testing.assert_allclose(found, rooted / np.linalg.norm(rooted), atol=1e-5)
    zero = jnp.zeros((1, 2, 2, 3))
    assert np.isfinite(jax.grad(lambda z: bilinear_pool(z).sum())(zero)).all()


def test_bilinear_branches_project_first(features):
    head = make("hbcnn", bilinear=True, bilinear_width=3)
    vectors = []
    for stage, layer in zip(features.stages, head.vectors.projections, strict=True):
        projected = np.asarray(stage, np.float64) @ array(layer.kernel) + array(layer.bias)
        vectors.append(np.asarray(bilinear_pool(jnp.asarray(projected, jnp.float32)), np.float64))
    expected = [
        logit_layer(layer, np.concatenate(vectors[: n + 1], axis=1))
        for n, layer in enumerate(head.logits)
    ]
    assert_close(head(features), expected)


# ---- branches of Swin blocks ---------------------------------------------------------------------


@pytest.mark.parametrize("branches", ["sequence", "parallel", "stages"])
def test_swin_blocks_read_what_the_setting_says(branches):
    backbone = types.SimpleNamespace(stage_dims=(32, 32, 64), feature_dim=64)
    head = make("bcnn", backbone=backbone, scramble=False, branches=branches, window=2)
    random = np.random.default_rng(0)
    sides = zip((8, 4, 2), backbone.stage_dims, strict=True)
    stages = tuple(
        jnp.asarray(random.normal(size=(2, side, side, width)), jnp.float32)
        for side, width in sides
    )
    found = head(Features(stages, pooled=jnp.zeros((2, 64))))
    read = stages[-1]
    for number, block in enumerate(head.vectors.blocks):
        given = {"sequence": read, "parallel": stages[-1], "stages": stages[number]}[branches]
        read = block(given, None)
        x = np.asarray(read, np.float64)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        norm = head.vectors.norms[number]
        x = (x * array(norm.scale) + array(norm.bias)).mean(axis=(1, 2))
        np.testing.assert_allclose(
            found[number], logit_layer(head.logits[number], x), rtol=1e-4, atol=1e-5
        )


def test_a_swin_block_has_the_report_s_shape():
    backbone = types.SimpleNamespace(stage_dims=(96, 192, 384, 768), feature_dim=768)
    head = make("bcnn", backbone=backbone, scramble=False, branches="sequence")
    block = head.vectors.blocks[0]
    assert block.attn.heads == 24 and block.attn.window == 7
    count = sum(x.size for x in jax.tree.leaves(nnx.state(block, nnx.Param)))
    assert abs(count / 7.1e6 - 1) < 0.01


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bcnn", {"taps": (0, 1)}, "config.head.taps: found .0, 1.; the tree has 3 levels"),
        ("bcnn", {"taps": (0, 1, 3)}, "config.head.taps: found .3.; the backbone has 3 stages"),
        ("sbacnn", {"taps": (0, 1)}, "config.head.taps: found .0, 1.; the tree has 3 levels"),
        ("bcnn", {"branches": "sequence", "taps": (0, 1, 2)}, 'found .0, 1, 2. with .*"stages"'),
        ("sbacnn", {"branches": "sequence", "taps": (0, 2, 2)}, 'found .0, 2, 2. with .*"stages"'),
        ("bcnn", {"branch_widths": (3,)}, "config.head.branch_widths: found .3,.; allowed"),
        ("concat", {"branch_widths": (3, 4), "trunk": True}, "3 numbers, one for each branch[.]"),
        ("bcnn", {"branch_widths": (3, 4, 5), "trunk": True}, "2 numbers.*but the last"),
        ("hbcnn", {"connections": ((0,), (), (2,))}, "config.head.connections: found"),
        ("hbcnn", {"connections": ((0,), (3,), (2,))}, "config.head.connections: found"),
    ],
)
def test_settings_that_do_not_fit_are_named(name, settings, message):
    with pytest.raises(UserError, match=message):
        make(name, **settings)


@pytest.mark.parametrize("name", [*NAMES, "coherent"])
def test_a_tree_of_one_level_is_refused(name):
    flat_tree = Taxonomy.flat(["x", "y"])
    with pytest.raises(UserError, match=f'found "{name}" for a tree of depth 1'):
        heads.find(name)(BACKBONE, 2, taxonomy=flat_tree, rngs=nnx.Rngs(0))
    lonely = Taxonomy.from_paths(("all", "taxon"), [("one", "x"), ("one", "y")])
    with pytest.raises(UserError, match='the level all has one node, "one"'):
        heads.find(name)(BACKBONE, 2, taxonomy=lonely, rngs=nnx.Rngs(0))


def test_a_backbone_without_the_maps_is_refused():
    bare = types.SimpleNamespace(feature_dim=9)
    for name in ("bcnn", "sbacnn"):
        with pytest.raises(UserError, match="the backbone names no stage_dims"):
            make(name, backbone=bare)
    no_sides = types.SimpleNamespace(feature_dim=9, stage_dims=(4, 4, 4))
    with pytest.raises(UserError, match='config.head.branches: found "dense"'):
        make("bcnn", backbone=no_sides)


def test_a_window_larger_than_the_map_is_refused(features):
    head = make("bcnn", branches="parallel", window=2, scramble=False)
    with pytest.raises(UserError, match="config.head.window: found 2; .* a map of 1 tokens"):
        head(features)


def test_default_taps():
    assert tap_indices(HeadConfig(), 3, 4) == (3, 3, 3)
    assert tap_indices(HeadConfig(branches="stages"), 3, 4) == (1, 2, 3)
    assert tap_indices(HeadConfig(branches="dense", taps=(1, 2, -1)), 3, 5) == (1, 2, 4)
    assert tap_indices(HeadConfig(taps=(2, -2, 2)), 3, 4) == (2, 2, 2)


# ---- with whole networks -------------------------------------------------------------------------


def parameters(name, config):
    """Of a head on base C for Fashion-MNIST."""
    head = heads.configured(name, config)
    model = jax.eval_shape(
        lambda key: nnx.split(
            models.create_model(
                "bcnn_base_c", 10, image_size=28, in_channels=1, head=head,
                taxonomy=FASHION, key=key,
            ),
            nnx.Param, ...,
        )[1],
        jax.random.key(0),
    )  # fmt: skip
    return sum(x.size for x in jax.tree.leaves(model))


@pytest.mark.parametrize(
    ("name", "millions"),
    [("bcnn", 40.6), ("hbcnn", 82.1), ("bacnn", 15.2), ("add", 17.3), ("concat", 40.6)],
)
def test_the_branch_papers_networks_have_their_published_size(name, millions):
    config = command.read_config(f"{CONFIGS / 'fashion_mnist.py'}:{name}", [])
    assert round(parameters(name, config.head) / 1e6, 1) == millions


def test_a_base_is_built_without_the_layers_that_no_branch_reads():
    dense = {"branches": "dense", "taps": (1, 2, -1)}
    with_trunk = HeadConfig(branch_widths=(256, 1024), trunk=True, **dense)
    without = HeadConfig(branch_widths=(256, 1024, 16), **dense)
    assert parameters("bcnn", with_trunk) > parameters("bcnn", without) + 15e6


FASHION = Taxonomy.from_paths(
    ("level1", "level2", "taxon"), [(f"side {k % 2}", f"{k % 6}", f"class {k}") for k in range(10)]
)


def small_base(**options):
    """A base whose own dense layers are left out where no branch reads them."""
    config = branch_bases.BranchBaseConfig(((4,), (4,), (8,)), dense=(16,))
    return branch_bases.build(config, **options)


@pytest.mark.parametrize(
    ("head", "backbone"),
    [("bacnn", "plankton_cnn_tiny"), *((name, small_base) for name in NAMES)],
)
def test_measurements_reach_every_branch(head, backbone):
    blocks = {"branches": "parallel", "window": 2} if isinstance(backbone, str) else {}
    settings = HeadConfig(**blocks or {"branches": "dense"}, width=8, attention_width=8)
    model = models.create_model(
        backbone, 6, image_size=32, in_channels=1, taxonomy=TREE, num_measurements=2,
        head=heads.configured(head, settings), key=jax.random.key(0),
    )  # fmt: skip
    embedding = model.measurements.output
    embedding.kernel[...] = jnp.ones_like(embedding.kernel[...])  # it begins with zeros
    images = jnp.zeros((2, 32, 32, 1))
    small = model(images, measurements=jnp.zeros((2, 2)))
    large = model(images, measurements=jnp.ones((2, 2)))
    for one, other in zip(small, large, strict=True):
        assert np.abs(np.asarray(one) - np.asarray(other)).max() > 1e-6


def test_the_branch_papers_networks_start_from_keras_s_values():
    """Glorot & Bengio 2010. Values of a tenth of these in the logits cost BA-CNN seven points."""
    config = command.read_config(f"{CONFIGS / 'fashion_mnist.py'}:bacnn/8", [])
    model = config.model.name(image_size=28, in_channels=1, rngs=nnx.Rngs(0))
    head = heads.configured("bacnn", config.head)(model, 10, taxonomy=FASHION, rngs=nnx.Rngs(1))
    convolution, dense = model.blocks[4][0].conv, head.dense[0].first.linear
    for kernel, fan_in, fan_out in (
        (convolution.kernel, 9 * 64, 9 * 64),
        (dense.kernel, 7 * 7 * 16, 16),
        (head.logits[2].kernel, 2 * 16, 10),
        (head.attention.hidden_kernel, 16, 2048),
    ):
        bound = np.sqrt(6 / (fan_in + fan_out))
        assert np.abs(array(kernel)).max() <= bound
        np.testing.assert_allclose(array(kernel).std(), bound / np.sqrt(3), rtol=0.1)


def test_a_branch_that_reads_the_trunk_has_no_block_of_its_own():
    settings = {"branches": "parallel", "window": 1, "bilinear": True, "bilinear_width": 3}
    head = make("bcnn", trunk=True, scramble=False, **settings)
    own = head.vectors
    assert len(own.blocks) == len(own.norms) == len(own.projections) == 2
    assert own.dims == (9, 9, BACKBONE.feature_dim)
