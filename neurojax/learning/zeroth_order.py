"""Learning from values of the loss alone: shift something, and see what the loss does.

    coordinates   g_i = (loss(w + mu e_i) - loss(w)) / mu
    neurons       delta_bi = (loss_b(z_i + mu) - loss_b(z_i)) / mu,   g = mean_b delta_b [s_b, 1]^T
    directions    g = mean_q ((loss(w + mu u_q) - loss(w)) / mu) u_q,    u_q ~ N(0, I)

A weight w_ij that is higher by mu is a current of neuron i that is higher by mu s_j: so every
shift goes in as current, and no device is pulsed to be asked. Losses are read through the arrays,
with all that is wrong with these. What lies below a shift is measured once for all queries.
Source: Chen et al. (2024), DeepZero, arXiv 2310.02025, secs. 3 (estimators), 4 (sparsity), 5.
"""

from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from neurojax._check import (
    between,
    classes,
    count,
    flag,
    instance,
    known_finite,
    positive,
    prng_key,
    real,
)
from neurojax._repr import described
from neurojax.learning.learner import Info, accuracy, forward, programmed
from neurojax.learning.perceptron import (
    Activation,
    asked,
    drawn,
    flat,
    layer_sizes,
    relu,
    with_one,
)
from neurojax.network import fold
from neurojax.weights import MakeWeights, Weights, ideal

__all__ = [
    "Asked", "Coordinates", "Directions", "Estimator", "Neurons", "ZerothOrder",
    "ZerothOrderState", "zo_grasp",
]  # fmt: skip


class Asked(eqx.Module):
    """A batch as it was seen without any shift, and what the loss is with one.

    `inputs` and `z` are those of `perceptron.Pass`; `losses` [batch] are cross-entropies.
    """

    weights: list[Weights]
    activation: Activation = eqx.field(static=True)
    inputs: list[Float[Array, "b _"]]
    z: list[Float[Array, "b _"]]
    y: Int[Array, " b"]

    @property
    def losses(self) -> Float[Array, " b"]:
        """Loss of each sample."""
        return _losses(self.z[-1], self.y)

    def shifted(
        self, layer: int, z: Float[Array, "b n"], key: Key[Array, ""]
    ) -> Float[Array, " b"]:
        """Loss of each sample where `layer`, counted from 0, gives `z`: only those above run."""
        for i in range(layer + 1, len(self.weights)):
            s = with_one(self.activation.value(z))
            z = forward(self.weights[i], s, jax.random.fold_in(key, i))
        return _losses(z, self.y)

    def along(self, u: list[Float[Array, "_ _"]], key: Key[Array, ""]) -> Float[Array, ""]:
        """Mean loss with all weights moved by `u`, which goes in as currents of every layer."""
        s, z = self.inputs[0], self.z[0]
        for i, w in enumerate(self.weights):
            if i:
                s = with_one(self.activation.value(z))
                z = forward(w, s, jax.random.fold_in(key, i))
            z = z + s @ u[i].T
        return _losses(z, self.y).mean()


def seen(
    weights: list[Weights], activation: Activation, x: Float[Array, "b i"], y: Int[Array, " b"],
    key: Key[Array, ""] | None,
) -> Asked:  # fmt: skip
    """A batch on its way up, without any shift."""
    inputs, z, a = [], [], x
    for i, w in enumerate(weights):
        inputs.append(with_one(a))
        z.append(forward(w, inputs[-1], None if key is None else jax.random.fold_in(key, i)))
        a = activation.value(z[-1])
    return Asked(weights, activation, inputs, z, y)


def _losses(scores: Float[Array, "b c"], y: Int[Array, " b"]) -> Float[Array, " b"]:
    """Cross-entropy of each sample."""
    at = jnp.take_along_axis(scores, y[:, None].astype(int), 1)[:, 0]
    return jax.nn.logsumexp(scores, 1) - at


class Estimator(Protocol):
    """What makes a gradient of losses."""

    def queries(self, sizes: tuple[int, ...]) -> int:
        """Passes of a batch through a net of `sizes`, that without a shift included."""
        ...

    def __call__(
        self, net: Asked, *, key: Key[Array, ""], mask_key: Key[Array, ""], step: Int[Array, ""]
    ) -> list[Array]:
        """Ascending change of each array: less the gradient of the mean loss."""
        ...


def _parts(x: Any) -> tuple[float, ...] | float:
    """Parts in [0, 1], one for all arrays or one an array."""
    checked = between("active", 0.0, 1.0)
    if isinstance(x, tuple | list):
        return tuple(float(checked(part)) for part in x)
    return float(checked(x))


@described
class Coordinates(eqx.Module):
    """One weight after another is shifted by `mu`; the others of the batch's gradient are 0.

    `active` is the part of the weights that is asked for, one number or one an array, as
    `zo_grasp` finds them; which ones is drawn anew every `every` batches. `central`: both signs,
    for twice the queries, error O(mu^2) in place of O(mu). `at_once` queries run side by side.
    `mu` is in weight units.
    Raises `ValueError` for numbers out of range, and where `active` leaves no coordinate.

    >>> nj.learning.Coordinates(active=0.1).queries((64, 32, 10))  # of 2410 weights
    242
    """

    mu: Float[Array, ""] = eqx.field(default=5e-3, converter=positive("mu", ""))
    active: tuple | float = eqx.field(static=True, default=1.0, converter=_parts)
    every: int = eqx.field(static=True, default=1, converter=count("every"))
    central: bool = eqx.field(static=True, default=False, converter=flag("central"))
    at_once: int = eqx.field(static=True, default=64, converter=count("at_once"))

    def counts(self, sizes: tuple[int, ...]) -> list[int]:
        """How many weights of each array of a net of `sizes` are asked for."""
        n = [(i + 1) * o for i, o in zip(sizes, sizes[1:], strict=False)]
        parts = self.active if isinstance(self.active, tuple) else (self.active,) * len(n)
        if len(parts) != len(n):
            raise ValueError(
                f"active must be one number or one for each of {len(n)} arrays; got {len(parts)}"
            )
        counts = [round(part * k) for part, k in zip(parts, n, strict=True)]
        if not sum(counts):
            raise ValueError(
                f"active must leave a coordinate to ask for, of {sum(n)}; got {self.active}: pass"
                f" {1 / max(n):.1g} or more"
            )
        return counts

    def queries(self, sizes: tuple[int, ...]) -> int:
        """One for each coordinate and sign, and one without a shift."""
        return (1 + self.central) * sum(self.counts(sizes)) + 1

    def mask(
        self, sizes: tuple[int, ...], key: Key[Array, ""], step: int | Int[Array, ""]
    ) -> list[Int[Array, " _"]]:
        """Places of what is asked for at batch `step`, in each array made flat."""
        now = jax.random.fold_in(key, step // self.every)
        drawn = []
        for i, (n_in, n_out, k) in enumerate(
            zip(sizes, sizes[1:], self.counts(sizes), strict=False)
        ):
            n = (n_in + 1) * n_out
            order = (
                jax.random.permutation(jax.random.fold_in(now, i), n) if k < n else jnp.arange(n)
            )
            drawn.append(order[:k])
        return drawn

    def __call__(
        self, net: Asked, *, key: Key[Array, ""], mask_key: Key[Array, ""], step: Int[Array, ""]
    ) -> list[Array]:
        """Ascending change of each array."""
        sizes = (net.inputs[0].shape[1] - 1, *(z.shape[1] for z in net.z))
        return [
            self._layer(net, i, at, jax.random.fold_in(key, i))
            for i, at in enumerate(self.mask(sizes, mask_key, step))
        ]

    def _layer(self, net: Asked, i: int, at: Int[Array, " k"], key: Key[Array, ""]) -> Array:
        s, z = net.inputs[i], net.z[i]
        n_in, n = s.shape[1], z.shape[1]

        def shift(at: Array) -> Array:
            current = jax.lax.dynamic_index_in_dim(s, at % n_in, 1, keepdims=True)
            return current * jax.nn.one_hot(at // n_in, n, dtype=z.dtype)[None]

        g = _differences(self, net, i, shift, at, key).mean(1)
        return -jnp.zeros(n * n_in, z.dtype).at[at].set(g).reshape(n, n_in)


@described
class Neurons(eqx.Module):
    """One neuron after another is given a current of `mu` more, in all samples of the batch.

    What the loss of each sample then does is the neuron's error in that sample, and its synapses
    need no more than it and what they hear: a query a neuron in place of one a weight, for the
    same gradient. `central` and `at_once` as in `Coordinates`; `mu` is in units of z.
    Raises `ValueError` for numbers out of range.

    >>> nj.learning.Neurons().queries((64, 32, 10))  # where coordinates take 2411
    43
    """

    mu: Float[Array, ""] = eqx.field(default=5e-3, converter=positive("mu", ""))
    central: bool = eqx.field(static=True, default=False, converter=flag("central"))
    at_once: int = eqx.field(static=True, default=64, converter=count("at_once"))

    def queries(self, sizes: tuple[int, ...]) -> int:
        """One for each neuron and sign, and one without a shift."""
        return (1 + self.central) * sum(sizes[1:]) + 1

    def __call__(
        self, net: Asked, *, key: Key[Array, ""], mask_key: Key[Array, ""], step: Int[Array, ""]
    ) -> list[Array]:
        """Ascending change of each array."""
        delta = []
        for i, z in enumerate(net.z):
            n = z.shape[1]
            shift = lambda j, n=n, z=z: jax.nn.one_hot(j, n, dtype=z.dtype)[None]  # noqa: E731
            key_i = jax.random.fold_in(key, i)
            delta.append(_differences(self, net, i, shift, jnp.arange(n), key_i).T)
        return asked(net.weights, delta, tuple(net.inputs))


@described
class Directions(eqx.Module):
    """All weights at once are shifted along each of `q` random directions: the control.

    The error of what is found is (d + 1) / q of the gradient's own square for d weights, so it
    takes q far beyond d to be right, where `Coordinates` need d. `mu` is in weight units.
    Raises `ValueError` for numbers out of range.

    >>> nj.learning.Directions(241).queries((64, 32, 10))
    242
    """

    q: int = eqx.field(static=True, converter=count("q"))
    mu: Float[Array, ""] = eqx.field(default=5e-3, converter=positive("mu", ""))
    at_once: int = eqx.field(static=True, default=64, converter=count("at_once"))

    def queries(self, sizes: tuple[int, ...]) -> int:
        """One for each direction, and one without a shift."""
        return self.q + 1

    def __call__(
        self, net: Asked, *, key: Key[Array, ""], mask_key: Key[Array, ""], step: Int[Array, ""]
    ) -> list[Array]:
        """Ascending change of each array."""
        none = [jnp.zeros_like(w.w) for w in net.weights]
        return [-g for g in self.gradient(net, none, net.losses.mean(), key)]

    def gradient(
        self, net: Asked, at: list[Array], loss: Float[Array, ""], key: Key[Array, ""]
    ) -> list[Array]:
        """Gradient about the weights moved by `at`, where the loss is `loss`."""
        mu = self.mu.astype(loss.dtype)

        def query(key: Array) -> Array:
            u = directions(at, key)
            moved = [a + mu * b for a, b in zip(at, u, strict=True)]
            return (net.along(moved, fold(key, "read")) - loss) / mu

        def add(g, now):
            rise, key = now
            return [a + rise * b for a, b in zip(g, directions(at, key), strict=True)], None

        keys = jax.random.split(key, self.q)
        rises = jax.lax.map(query, keys, batch_size=self.at_once)
        total, _ = jax.lax.scan(add, [jnp.zeros_like(a) for a in at], (rises, keys))
        return [g / self.q for g in total]


def directions(like: list[Array], key: Key[Array, ""]) -> list[Array]:
    """One direction, N(0, I) over all arrays."""
    keys = jax.random.split(key, len(like))
    return [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, like, strict=True)]


def _differences(
    estimator: Coordinates | Neurons, net: Asked, i: int, shift: Any, at: Int[Array, " k"],
    key: Key[Array, ""],
) -> Float[Array, "k b"]:  # fmt: skip
    """Derivative of each sample's loss by each of `at`, which shifts z of layer `i` by `shift`."""
    z = net.z[i]
    mu = estimator.mu.astype(z.dtype)
    read = lambda by, key: net.shifted(i, z + by, key)  # noqa: E731

    def query(now: tuple[Array, Array]) -> Array:
        which, q = now
        by, key_q = mu * shift(which), jax.random.fold_in(key, q)
        if estimator.central:
            return (read(by, key_q) - read(-by, fold(key_q, "down"))) / (2 * mu)
        return (read(by, key_q) - net.losses) / mu

    return jax.lax.map(query, (at, jnp.arange(len(at))), batch_size=estimator.at_once)


class ZerothOrderState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "w1" to "wL", [n_out, n_in + 1]
        opt_state: any; that of the optax transformation
        step: int []; batches learned so far
        key: key []; masks are drawn from it
    """

    weights: dict[str, Weights]
    opt_state: Any
    step: Int[Array, ""]
    key: Key[Array, ""]


@described
class ZerothOrder(eqx.Module):
    """A perceptron of `sizes`, (n_in, hidden ..., n_classes), that only ever sees its loss.

    A `Learner`. `estimator` says what is shifted: `Neurons`, `Coordinates` or `Directions`. The
    loss is the cross-entropy of a batch, as read through the weights, devices with their noise,
    drift and faults included. `tx` is an optax transformation; `activation` may be any function,
    as its slope is not used. First weights are Gaussian of standard deviation
    gain / sqrt(fan-in), biases 0.
    Raises `ValueError` for sizes that are no two or more whole numbers >= 1 and a mask that
    leaves no coordinate; `TypeError` for a class in place of its instance.

    >>> import optax
    >>> net = nj.learning.ZerothOrder((64, 32, 10), nj.learning.Neurons(), optax.sgd(0.1))
    >>> state = net.init(jax.random.key(0))
    >>> x, y = jnp.ones((2, 64)), jnp.array([0, 2])
    >>> state, info = net.step(state, x, y, key=jax.random.key(1))
    >>> net.queries, net.predict(state, x).shape
    (43, (2, 10))
    """

    sizes: tuple = eqx.field(static=True, converter=layer_sizes)
    estimator: Estimator = eqx.field(
        converter=lambda x: instance("estimator", x, "queries", "__call__")
    )
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    activation: Activation = eqx.field(static=True, default=relu)
    gain: float | Array = eqx.field(
        default=1.0, converter=lambda x: known_finite("gain", real(x, "gain"))
    )

    def __check_init__(self):
        self.estimator.queries(self.sizes)

    @property
    def queries(self) -> int:
        """Passes of a batch that a step takes."""
        return self.estimator.queries(self.sizes)

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> ZerothOrderState:
        """Fresh weights, the optimiser's state, and no batch yet."""
        weights = drawn(prng_key(key), self.sizes, make_weights, self.gain)
        opt_state = self.tx.init({n: w.w for n, w in weights.items()})
        return ZerothOrderState(weights, opt_state, jnp.zeros((), jnp.int32), fold(key, "masks"))

    def step(
        self, state: ZerothOrderState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[ZerothOrderState, Info]:  # fmt: skip
        """Learn from one batch by as many passes of it as `queries` says."""
        net = self.asked(state, x, y, fold(key, "read"))
        dw = self.estimator(net, key=fold(key, "queries"), mask_key=state.key, step=state.step)
        named = dict(zip(state.weights, dw, strict=True))
        weights, opt_state = programmed(self.tx, state.weights, state.opt_state, named, key)
        info = {"accuracy": accuracy(net.z[-1], y), "loss": net.losses.mean()}
        return ZerothOrderState(weights, opt_state, state.step + 1, state.key), info

    def predict(
        self, state: ZerothOrderState, x: Float[Array, "b ..."], *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b c"]:  # fmt: skip
        """Scores [batch, n_classes]."""
        arrays, x = list(state.weights.values()), flat(x, self.sizes[0])
        return seen(arrays, self.activation, x, jnp.zeros(len(x), int), key).z[-1]

    def asked(
        self, state: ZerothOrderState, x: Float[Array, "b ..."], y: Int[Array, " b"],
        key: Key[Array, ""] | None = None,
    ) -> Asked:  # fmt: skip
        """A batch without any shift, which estimators ask about."""
        x, y = flat(x, self.sizes[0]), classes("y", y, self.sizes[-1], len(x))
        return seen(list(state.weights.values()), self.activation, x, y, key)


def zo_grasp(
    net: ZerothOrder, state: ZerothOrderState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
    key: Key[Array, ""], active: float = 0.1, q: int = 192, mu: float = 5e-3,
) -> tuple[float, ...]:  # fmt: skip
    """The part of each array that is worth asking for, where `active` of all weights are.

        score = - w o (g(w + mu g(w)) - g(w)) / mu,     g by `q` random directions

    The `active` part with the largest scores by magnitude is counted array by array; what is
    returned is for `Coordinates(active=...)`. Both g go along the same directions. To be called
    outside jit, on a batch of some samples of each class (the paper: 25).
    Raises `ValueError` where `active` leaves no coordinate, or is out of [0, 1].
    Source: Chen et al. (2024), sec. 4; its score is that of Wang et al. (2020), GraSP.

    >>> import optax
    >>> net = nj.learning.ZerothOrder((4, 3, 2), nj.learning.Coordinates(), optax.sgd(0.1))
    >>> state, x, y = net.init(jax.random.key(0)), jnp.ones((2, 4)), jnp.array([0, 1])
    >>> parts = nj.learning.zo_grasp(net, state, x, y, key=jax.random.key(1), active=0.5)
    >>> len(parts), round(sum(p * n for p, n in zip(parts, (15, 8))))  # half of 23
    (2, 12)
    """
    score = _scores(net, state, x, y, Directions(q, mu), key)
    sizes = [s.size for s in score]
    keep = sum(Coordinates(active=float(between("active", 0.0, 1.0)(active))).counts(net.sizes))
    top = np.argsort(-np.abs(np.concatenate([np.ravel(s) for s in score])), kind="stable")[:keep]
    layer = np.searchsorted(np.cumsum(sizes), top, side="right")
    return tuple(
        float(k / n) for k, n in zip(np.bincount(layer, minlength=len(sizes)), sizes, strict=True)
    )


@eqx.filter_jit
def _scores(net, state, x, y, estimator: Directions, key) -> list[Array]:
    """ZO-GraSP's score of each weight."""
    batch, key_q = net.asked(state, x, y, fold(key, "read")), fold(key, "directions")
    none = [jnp.zeros_like(w.w) for w in batch.weights]
    g = estimator.gradient(batch, none, batch.losses.mean(), key_q)
    mu = estimator.mu.astype(g[0].dtype)
    moved = [mu * a for a in g]
    there = batch.along(moved, fold(key, "moved"))
    further = estimator.gradient(batch, moved, there, key_q)
    return [-w.w * (b - a) / mu for w, a, b in zip(batch.weights, g, further, strict=True)]


def __dir__() -> list[str]:
    return __all__
