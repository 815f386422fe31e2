"""NoProp: what the schedule promises, and blocks that know nothing of one another."""

import functools
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from neurojax.learning import MLPBlock, NoiseSchedule, NoProp, SpikingBlock, cosine_noise

KEY = jax.random.key(0)
# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
N_IN, CLASSES, T = 6, 3, 4
LEARNER = NoProp(MLPBlock(N_IN, CLASSES, 8, 5, 7), optax.adamw(1e-2), cosine_noise(T))
drawn = functools.cache(lambda: quick(lambda key: LEARNER.init(key))(KEY))
learned = quick(lambda state, x, y: LEARNER.step(state, x, y, key=KEY)[0])


def blobs(n, seed=0):
    """Noisy copies of three patterns, and which one each of them is."""
    rng = np.random.default_rng(seed)
    centres, y = np.random.default_rng(9).normal(size=(3, N_IN)), rng.integers(0, 3, n)
    return jnp.asarray(centres[y] + 0.3 * rng.normal(size=(n, N_IN)), float), jnp.asarray(y)


def block(state, t):
    return jax.tree.map(lambda a: a[t], state)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("n_blocks", "clip"), [(10, 1e-5), (10, 0.02), (1, 1e-5), (200, 1e-3)])
def test_the_schedule_leads_from_noise_to_the_label(n_blocks, clip):
    """A right belief takes z of mean sqrt(abar) u and variance 1 - abar to the next of these."""
    s = cosine_noise(n_blocks, clip)
    assert s.n_blocks == n_blocks
    np.testing.assert_allclose(s.alpha_bar + s.noise, 1, rtol=1e-15)
    np.testing.assert_allclose(s.alpha_bar[jnp.array([0, -1])], [clip, 1 - clip], rtol=1e-12)
    a, b, c = s.coefficients
    mean, variance = jnp.sqrt(s.alpha_bar), s.noise
    np.testing.assert_allclose(a + b * mean[:-1], mean[1:], rtol=1e-14)
    np.testing.assert_allclose(b**2 * variance[:-1] + c, variance[1:], rtol=1e-12)
    # the weights of the published loss, and that they telescope
    weight = (s.snr[1:] - s.snr[:-1]) / 2
    np.testing.assert_allclose(a**2 / (2 * c), weight, rtol=1e-10)
    np.testing.assert_allclose(weight.sum(), (s.snr[-1] - s.snr[0]) / 2, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_coefficients_are_those_of_the_paper():
    s = cosine_noise(5, 0.01)
    bar = np.asarray(s.alpha_bar)
    before, after, alpha = bar[:-1], bar[1:], bar[:-1] / bar[1:]
    paper = (
        np.sqrt(after) * (1 - alpha) / (1 - before),
        np.sqrt(alpha) * (1 - after) / (1 - before),
        (1 - after) * (1 - alpha) / (1 - before),
    )
    for mine, theirs in zip(s.coefficients, paper, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_late_blocks_can_read_the_label_off_what_they_are_given():
    """10, 16, 34 and 90% of labels are the largest of z_t at t = 0, 2, 5 and 8 of 10."""
    learner, n = NoProp(MLPBlock(1, 10), optax.sgd(0.1)), 4000
    y = jnp.arange(n) % 10
    for t, part in ((0, 0.10), (2, 0.16), (5, 0.34), (8, 0.90)):
        read = (learner.noised(y, t, key=KEY).argmax(1) == y).mean()
        assert abs(read - part) < 0.005 + 4 * np.sqrt(part * (1 - part) / n)  # as printed


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_block_descends_the_distance_of_its_belief_from_the_label():
    mlp = MLPBlock(N_IN, CLASSES, 8, 5, 7)
    x, y = blobs(4)
    z = jax.random.normal(jax.random.key(2), (4, CLASSES))
    weights = quick(lambda key: mlp.init(key))(KEY)[0]
    u = jnp.eye(CLASSES)[y]

    def loss(w):
        one = jnp.ones((4, 1))
        up = lambda name, *a: jnp.concatenate([*a, one], 1) @ w[name].T  # noqa: E731
        both = jax.nn.relu(up("image", x)), jax.nn.relu(up("label", z))
        p = jax.nn.softmax(up("out", jax.nn.relu(up("hidden", *both))))
        return jnp.square(p - u).sum() / 2 / 4

    w = {name: held.w for name, held in weights.items()}
    assert set(mlp.plastic) == set(w)
    dw, _, p = quick(lambda weights: mlp.learn(weights, None, x, z, y, key=KEY))(weights)
    for name, g in quick(jax.grad(loss))(w).items():
        assert np.abs(g).max() > 1e-4
        np.testing.assert_allclose(dw[name], -g, rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(jnp.square(p - u).sum() / 8, loss(w), rtol=1e-12)


@pytest.mark.slow
def test_a_block_alone_learns_bit_for_bit_what_it_learns_with_all():
    state, (x, y) = drawn(), blobs(32)
    only = NoProp(LEARNER.block, LEARNER.tx, LEARNER.schedule, only=2)
    run = quick(lambda only, state, x, y: eqx.combine(only, rest).step(state, x, y, key=KEY)[0])
    mask, rest = eqx.partition(only, eqx.is_array)
    every = eqx.filter(LEARNER, eqx.is_array)
    together, alone = run(every, state, x, y), run(mask, state, x, y)
    assert np.any(block(alone, 2).weights["out"].w != block(state, 2).weights["out"].w)
    jax.tree.map(np.testing.assert_array_equal, block(together, 2), block(alone, 2))
    for other in (0, 1, 3):
        jax.tree.map(np.testing.assert_array_equal, block(alone, other), block(state, other))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_block_on_a_core_of_its_own_learns_the_same_to_rounding():
    """Another program adds in another order: 1e-12 is that of some 50 numbers."""
    learner = NoProp(LEARNER.block, optax.sgd(0.1), cosine_noise(T))
    x, y = blobs(32)
    state = quick(lambda key: learner.init(key))(KEY)
    together = quick(lambda state: learner.step(state, x, y, key=KEY)[0])(state)
    core = quick(lambda state: learner.step_block(state, 2, x, y, key=KEY)[0])
    for a, b in zip(
        jax.tree.leaves(block(together, 2)), jax.tree.leaves(core(block(state, 2))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_no_block_hears_of_another():
    state, (x, y) = drawn(), blobs(8)
    spoilt = jax.tree.map(lambda a: a.at[1].mul(3).astype(a.dtype), state)
    after, other = learned(state, x, y), learned(spoilt, x, y)
    for mine, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.delete(mine, 1, 0), np.delete(theirs, 1, 0))
    assert np.any(after.weights["out"].w[1] != other.weights["out"].w[1])


@functools.cache
def trained():
    x, y = blobs(48)

    def step(state, key):
        return LEARNER.step(state, x, y, key=key)

    run = quick(lambda state, keys: jax.lax.scan(step, state, keys))
    return run(drawn(), jax.random.split(KEY, 80))


walked = quick(lambda state, x: LEARNER.path(state, x, key=jax.random.key(5)))


def test_it_learns_and_reads_pictures_alone():
    state, info = trained()
    assert info["accuracy"][-10:].mean() > 0.95
    x, y = blobs(400, seed=7)
    right = lambda x: (walked(state, x).z[-1].argmax(1) == y).mean()  # noqa: E731
    assert right(x) > 0.95
    # pictures in another order: what is left is chance, within 4 standard errors
    assert abs(right(jnp.roll(x, 171, 0)) - 1 / 3) < 4 * np.sqrt(2 / 9 / 400)
    assert list(inspect.signature(LEARNER.predict).parameters) == ["state", "x", "key"]


def test_the_path_is_made_of_beliefs_and_noise():
    state, (x, y) = trained()[0], blobs(400, seed=8)
    path, s = walked(state, x), LEARNER.schedule
    assert path.z.shape == (T + 1, 400, CLASSES)
    assert path.u.shape == (T, 400, CLASSES)
    assert np.all([(u.argmax(1) == y).mean() > 0.9 for u in path.u])
    a, b, c = s.coefficients
    for t in range(T):
        eps = (path.z[t + 1] - a[t] * path.u[t] - b[t] * path.z[t]) / jnp.sqrt(c[t])
        assert abs(eps.mean()) < 4 / 1200**0.5
        assert abs(eps.std() - 1) < 4 / 2400**0.5
    assert abs(path.z[0].std() - 1) < 4 / 2400**0.5
    calm = quick(lambda state: LEARNER.path(state, x))(state)  # no key: along the mean
    np.testing.assert_array_equal(calm.z[0], 0)
    np.testing.assert_allclose(calm.z[1], a[0] * calm.u[0], rtol=1e-5)
    assert (calm.z[-1].argmax(1) == y).mean() > 0.95
    # numbers are read without noise: a key, as `evaluate` hands it over, changes no score
    scores = quick(lambda state: LEARNER.predict(state, x, key=KEY))(state)
    np.testing.assert_allclose(scores, calm.z[-1], rtol=1e-5, atol=1e-6)


def spiking():
    layer = nj.Layer(12, nj.LIF(9.5, 4.0), rule=nj.ThreeFactor())
    loop = nj.Recurrence("none")
    net = nj.structured(None, N_IN + CLASSES, [layer], CLASSES, recurrence=loop)
    system = nj.wta_broadcast.system(KEY, net, n_steps=8, start=2)
    return NoProp(SpikingBlock(system, label_gain=0.5), optax.adam(0.02), cosine_noise(2))


def refuse(*arguments, **options):
    raise AssertionError("nothing here may take a derivative")


@pytest.mark.slow
def test_spiking_blocks_pass_nothing_back(monkeypatch, no_derivatives):
    monkeypatch.setattr(nj.Ideal, "apply_t", refuse)
    learner, (x, y) = spiking(), blobs(48)
    x = jnp.abs(x)

    @quick
    def run(key):
        state = learner.init(key)
        step = lambda state, key: learner.step(state, x, y, key=key)  # noqa: E731
        state, info = jax.lax.scan(step, state, jax.random.split(key, 40))
        return state, info["accuracy"], learner.path(state, x, key=key)

    state, accuracy, path = run(KEY)
    assert accuracy[-5:].mean() > 0.9
    assert (path.z[-1].argmax(1) == y).mean() > 0.9
    np.testing.assert_allclose(path.u.sum(-1), 1, rtol=1e-5)
    # each block has moved its own thresholds
    v_th = state.rest["h1"].v_th
    assert v_th.shape == (2, 12)
    assert np.any(v_th[0] != v_th[1])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="n_blocks must be a whole number >= 1; got 0"):
        cosine_noise(0)
    for clip in (0.0, 0.5, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"clip must lie within \(0, 0.5\); got"):
            cosine_noise(3, clip)
    with pytest.raises(ValueError, match="alpha_bar must rise from abar_0 to abar_T; got"):
        NoiseSchedule([0.5, 0.1])
    with pytest.raises(ValueError, match=r"alpha_bar must lie within \(0, 1\); got 0.1 to 1"):
        NoiseSchedule([0.1, 1.0])
    with pytest.raises(ValueError, match="n_classes must be a whole number >= 2; got 1"):
        MLPBlock(4, 1)
    with pytest.raises(ValueError, match="only must be one of 4 blocks, from 0; got 4"):
        NoProp(LEARNER.block, LEARNER.tx, LEARNER.schedule, only=4)
    with pytest.raises(TypeError, match="block must be an instance; got the class"):
        NoProp(MLPBlock, optax.sgd(0.1))
    with pytest.raises(
        TypeError, match="schedule must be an instance of NoiseSchedule; got int 10"
    ):
        NoProp(MLPBlock(4, 2), optax.sgd(0.1), 10)
    state = drawn()
    with pytest.raises(ValueError, match=r"x must be \[batch, ...\] of 6 numbers a sample; got"):
        LEARNER.predict(state, jnp.ones((2, 5)))
    with pytest.raises(ValueError, match=r"y must be in \[0, 3\), as there are 3 classes; got 3"):
        LEARNER.step(state, jnp.ones((1, N_IN)), jnp.array([3]), key=KEY)


def test_a_spiking_block_needs_room_for_the_label_and_a_softmax():
    layer = nj.Layer(4, nj.LIF(), rule=nj.ThreeFactor())
    net = nj.structured(None, 3, [layer], 3, recurrence=nj.Recurrence("none"))
    system = nj.wta_broadcast.system(KEY, net)
    with pytest.raises(ValueError, match="must read a picture and 3 numbers of a label.*got 3"):
        SpikingBlock(system)
    hard = eqx.tree_at(lambda s: s.teacher, spiking().block.system, nj.HardWTA())
    with pytest.raises(TypeError, match="teacher must be an instance of SoftWTA"):
        SpikingBlock(hard)


class Told(eqx.Module):
    """A block that believes what it is given."""

    n_classes: int = 3
    plastic: tuple = ()

    def init(self, key, make_weights):
        return {}, None

    def believe(self, weights, rest, x, z, *, key):
        return z

    def learn(self, weights, rest, x, z, y, *, key):
        return {}, rest, z


def test_each_block_has_noise_of_its_own():
    learner = nj.learning.NoProp(Told(), optax.sgd(0.1), nj.learning.cosine_noise(2, 0.3))
    state, y, key = (
        nj.learning.noprop.NoPropState({}, None, learner.tx.init({})),
        jnp.arange(3),
        KEY_0,
    )
    z = [learner.step_block(state, t, jnp.ones((3, 2)), y, key=key)[1] for t in (0, 1)]
    part = learner.schedule.alpha_bar[:2]
    eps = [(zt - jnp.sqrt(a) * jnp.eye(3)) / jnp.sqrt(1 - a) for zt, a in zip(z, part, strict=True)]
    assert (jnp.abs(eps[0] - eps[1]) > 1e-3).all()


@pytest.mark.slow
def test_the_loss_of_a_block_is_that_of_its_chances():
    block = nj.learning.MLPBlock(4, 3, image=5, label=2, hidden=6)
    weights, _ = block.init(KEY_0)
    x, z, y = jax.random.normal(KEY_0, (7, 4)), jax.random.normal(KEY_0, (7, 3)), jnp.arange(7) % 3
    dw, _, p = block.learn(weights, None, x, z, y, key=KEY_0)
    p, wrong = np.asarray(p, float), np.asarray(p - jax.nn.one_hot(y, 3), float)
    slopes = np.stack([np.diag(each) - np.outer(each, each) for each in p])  # of a softmax
    by_bias = np.einsum("bij,bj->bi", slopes, wrong).mean(0)
    np.testing.assert_allclose(dw["out"][:, -1], -by_bias, rtol=1e-4, atol=1e-7)


KEY_0 = jax.random.key(0)


@pytest.mark.parametrize("n_blocks", [10, 1000])
def test_coefficients_keep_their_digits_where_nearly_all_is_signal(n_blocks):
    given = 1e-5 + (1 - 2e-5) * np.sin(np.linspace(0, np.pi / 2, n_blocks + 1)) ** 2
    before, after = given[:-1], given[1:]
    a = np.sqrt(after) * (1 - before / after) / (1 - before)
    c = (1 - after) * (1 - before / after) / (1 - before)
    found = cosine_noise(n_blocks).coefficients
    np.testing.assert_allclose(found.a, a, rtol=1e-6)
    np.testing.assert_allclose(found.c, c, rtol=1e-6)


def test_a_schedule_must_rise_in_the_digits_that_are_kept():
    with pytest.raises(ValueError, match=r"alpha_bar must rise within \(0, 1\) in float32 too"):
        NoiseSchedule([1e-60, 1e-50])


@pytest.mark.parametrize("dtype", [int, bool])
def test_whole_numbered_pictures_are_floats_of_these(dtype, untyped):
    net = NoProp(MLPBlock(6, 3, 8, 8, 8), optax.sgd(0.1), cosine_noise(3))
    state, x = net.init(KEY), jax.random.bernoulli(KEY, 0.5, (4, 6))
    np.testing.assert_array_equal(
        net.predict(state, x.astype(dtype)), net.predict(state, x.astype(float))
    )
