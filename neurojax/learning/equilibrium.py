"""Equilibrium propagation: a network settles, is nudged, and what the nudge moves is the error.

    r = phi(u),    u* = W r + W_in x + b + beta dl/dr,    l = cross-entropy of softmax(R r^L), y
    dr/dbeta ~ 1/(N |beta|) sum_k (r*(|beta| z_k) - r*(0)) / z_k,    z_k = e^(2 pi i k/N), k < N
    dW = -dr/dbeta r^T,    dW_in = -dr/dbeta x^T,    db = -dr/dbeta,    dR = -(p - y) r^L^T

N points on a circle leave an error of the order |beta|^N, if phi is holomorphic. dr/dbeta is the
error that backpropagation through the equilibrium finds where W is symmetric: so it is by physics
where one array is read both ways. Where two arrays stand for the two ways, it is off by about
twice the antisymmetric part of the Jacobian over the symmetric one, which homeostasis draws to 0.

Source: Laborieux and Zenke (2024), arXiv 2309.02214; Scellier and Bengio (2017), Front. Comput.
Neurosci. 11, 24.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from neurojax._check import (
    classes,
    count,
    finite,
    flag,
    instance,
    known_finite,
    nonnegative,
    one_number,
    positive,
    prng_key,
    real,
)
from neurojax._draw import fold
from neurojax._repr import described
from neurojax.learning.learner import Info, accuracy, programmed
from neurojax.learning.perceptron import Activation, drawn, flat, layer_sizes
from neurojax.learning.relax import Relaxed, damped, settled
from neurojax.weights import MakeWeights, Weights, ideal, normal
from neurojax.wiring.layouts import Dense

__all__ = ["Equilibrium", "EquilibriumState", "dsilu", "steep_sigmoid"]

Arrays = dict[str, Weights]
States = tuple[Array, ...]  # one sample: a number a neuron of each layer, [n] each


def _dsilu(u: Array) -> Array:
    return u / 2 * jax.nn.sigmoid(u) + (1 - u / 2) * jax.nn.sigmoid(u - 2)


def _dsilu_slope(u: Array) -> Array:
    s, t = jax.nn.sigmoid(u), jax.nn.sigmoid(u - 2)
    return (s - t) / 2 + u / 2 * s * (1 - s) + (1 - u / 2) * t * (1 - t)


def _steep(u: Array) -> Array:
    return jax.nn.sigmoid(4 * u - 2)


# Holomorphic about the real axis, so that they may be nudged in the complex plane.
dsilu = Activation(_dsilu, _dsilu_slope)
steep_sigmoid = Activation(_steep, lambda u: 4 * _steep(u) * (1 - _steep(u)))


class EquilibriumState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "w1" to "wL" [n, n_below + 1] upwards, "readout"
            [n_classes, n_classes + 1]; untied also "v1" to "v(L-1)" [n, n_above] downwards
        opt_state: any; that of the optax transformation
    """

    weights: Arrays
    opt_state: Any


def _points(n: Any) -> int:
    n = count("n_points")(n)
    if n > 1 and n % 2:
        raise ValueError(f"n_points must be 1 or even; got {n}: pass {n + 1}")
    return n


@described
class Equilibrium(eqx.Module):
    """Layers of `sizes`, (n_in, hidden ..., n_classes), that settle, and a readout; a `Learner`.

    A sample, of any shape of n_in numbers, drives the first layer. All layers settle together,
    from 0, in `t_free` steps at most, and from there in `t_nudged` at each of `n_points` nudges
    of size `beta`. One point is a nudge against none, 2 are +-beta; more lie in the complex
    plane, for which `activation` must be holomorphic: an array then reads real and imaginary
    part one after the other. Settling ends early where no u is asked to move by more than `tol`.
    A larger `beta` drowns noise and rounding; where r*(beta) has a pole within the circle, no
    number of points helps.

    `tied`: one array between two layers, read up and down. Untied, each way has an array of its
    own; they start as each other's transposes, turned towards chance by `angle` degrees, and
    `homeostasis` times the gradient of |W - W^T|^2 / 2n, of n neurons, draws them together.
    `exact`: the adjoint of the equilibrium in place of nudges, a control that reads each array
    transposed and is told the slope of `activation`.

    First weights are Gaussian of standard deviation gain / sqrt(fan-in), biases 0. `tx` is an
    optax transformation, which gets the changes negated. `step` tells the accuracy, `residual`
    (how far the u that is furthest from rest is asked to move, without unit) and `unsettled`
    (the part of samples beyond `tol`).
    Raises `ValueError` for an odd number of points beyond 1, beta = 0 and other numbers out of
    range, and for what only untied arrays have; `TypeError` for a class in place of its instance.
    Source: Laborieux and Zenke (2024), arXiv 2309.02214.

    >>> import optax
    >>> net = nj.learning.Equilibrium((64, 32, 10), optax.sgd(0.1), t_free=20, t_nudged=8)
    >>> state = net.init(jax.random.key(0))
    >>> x, y = jnp.ones((2, 64)), jnp.array([0, 2])
    >>> state, info = net.step(state, x, y, key=jax.random.key(1))
    >>> net.predict(state, x).shape, bool(info["residual"] < 1e-3)
    ((2, 10), True)
    """

    sizes: tuple = eqx.field(static=True, converter=layer_sizes)
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    activation: Activation = eqx.field(static=True, default=dsilu)
    tied: bool = eqx.field(static=True, default=True, converter=flag("tied"))
    n_points: int = eqx.field(static=True, default=2, converter=_points)
    beta: Float[Array, ""] = eqx.field(default=0.5, converter=positive("beta", ""))
    t_free: int = eqx.field(static=True, default=60, converter=count("t_free"))
    t_nudged: int = eqx.field(static=True, default=15, converter=count("t_nudged"))
    tol: Float[Array, ""] = eqx.field(default=1e-4, converter=nonnegative("tol", ""))
    damping: Float[Array, ""] = eqx.field(default=0.3, converter=damped)
    homeostasis: Float[Array, ""] = eqx.field(default=0.0, converter=nonnegative("homeostasis", ""))
    angle: Float[Array, ""] = eqx.field(default=0.0, converter=finite("angle", "degrees"))
    gain: float | Array = eqx.field(
        default=1.0, converter=lambda x: known_finite("gain", real(x, "gain"))
    )
    exact: bool = eqx.field(static=True, default=False, converter=flag("exact"))

    def __check_init__(self):
        one_number(self, "gain", "beta", "tol", "homeostasis", "angle")
        for name in ("homeostasis", "angle") if self.tied else ():
            given = getattr(self, name)
            if not isinstance(given, Tracer) and np.any(np.asarray(given)):
                raise ValueError(
                    f"{name} must be 0 for one array read both ways; got {given}: pass tied=False"
                )

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> EquilibriumState:
        """Fresh weights and the optimiser's state."""
        key, n = prng_key(key), self.sizes[-1]
        weights = drawn(key, self.sizes, make_weights, self.gain)
        weights["readout"] = drawn(fold(key, "readout"), (n, n), make_weights)["w1"]
        if not self.tied:
            weights |= self._downwards(weights, key, make_weights)
        return EquilibriumState(weights, self.tx.init({n: w.w for n, w in weights.items()}))

    def _downwards(self, weights: Arrays, key: Array, make_weights: MakeWeights) -> Arrays:
        """Arrays "v1" to "v(L-1)": the transposed ones, turned by `angle` towards chance."""
        found = {}
        for i, (n, above) in enumerate(zip(self.sizes[1:], self.sizes[2:], strict=False), 1):
            at, mirror = fold(key, f"v{i}"), _matrix(weights[f"w{i + 1}"]).T
            chance = normal(fold(at, "first"), Dense(n, above), self.gain, mirror.dtype).T
            turn = jnp.deg2rad(self.angle).astype(mirror.dtype)
            v = jnp.cos(turn) * mirror + jnp.sin(turn) * chance
            found[f"v{i}"] = make_weights(v, Dense(above, n), fold(at, "make"))
        return found

    def step(
        self, state: EquilibriumState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[EquilibriumState, Info]:  # fmt: skip
        """Learn from one batch what the nudges moved."""
        y = classes("y", y, self.sizes[-1], len(x))
        x, held = flat(x, self.sizes[0]), state.weights
        one = lambda x, y, key: self._taught(held, x, y, key)  # noqa: E731
        keys = jax.random.split(fold(key, "read"), len(x))
        free, moved, e, scores = jax.vmap(one)(x, y, keys)
        r = tuple(map(self.activation.value, free.state))
        weights, opt_state = programmed(
            self.tx, held, state.opt_state, self._changes(held, x, r, moved, e), key
        )
        info = {
            "accuracy": accuracy(scores, y), "residual": free.residual.max(),
            "unsettled": (~(free.residual <= self.tol.astype(free.residual.dtype))).mean(),
        }  # fmt: skip
        return EquilibriumState(weights, opt_state), info

    def predict(
        self, state: EquilibriumState, x: Float[Array, "b ..."], *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b c"]:  # fmt: skip
        """Scores [batch, n_classes] of the free equilibrium."""
        x = flat(x, self.sizes[0])

        def one(x: Array, key: Array | None) -> Array:
            u = self.settled(state.weights, x, key=key).state
            return self._scores(state.weights, self.activation.value(u[-1]), fold(key, "scores"))

        return jax.vmap(one)(x, None if key is None else jax.random.split(key, len(x)))

    def settled(
        self, weights: Arrays, x: Float[Array, " i"], *, key: Key[Array, ""] | None = None
    ) -> Relaxed:
        """The free equilibrium of one sample [n_in]: u of each layer [n], from 0."""
        drive = self._drive(weights, x, key)
        rest = tuple(jnp.zeros(n, drive.dtype) for n in self.sizes[1:])
        step = lambda u, key: self._currents(weights, drive, u, key)  # noqa: E731
        return self._relaxed(step, rest, self.t_free, fold(key, "free"))

    def response(
        self, weights: Arrays, x: Float[Array, " i"], y: Int[Array, ""], u: States, *,
        key: Key[Array, ""] | None = None,
    ) -> States:  # fmt: skip
        """dr/dbeta of each layer [n], of one sample [n_in] of label `y` settled at `u`."""
        drive, phi = self._drive(weights, x, key), self.activation.value
        turns, shares = _circle(self.n_points, u[0].dtype)
        start = tuple(x.astype(turns.dtype) for x in u)
        beta = self.beta.astype(u[0].dtype)

        def moved(turn: Array, key: Array | None) -> States:
            nudge = beta.astype(turn.dtype) * turn, y
            step = lambda u, key: self._currents(weights, drive, u, key, nudge)  # noqa: E731
            nudged = self._relaxed(step, start, self.t_nudged, key).state
            far = zip(map(phi, nudged), map(phi, start), strict=True)
            return tuple((jnp.conj(turn) * (r - r0)).real for r, r0 in far)

        keys = None if key is None else jax.random.split(fold(key, "nudged"), len(turns))
        return tuple(shares @ m / (self.n_points * beta) for m in jax.vmap(moved)(turns, keys))

    def adjoint(
        self, weights: Arrays, y: Int[Array, ""], u: States, *, key: Key[Array, ""] | None = None
    ) -> States:
        """The derivative of the loss by u of each layer over phi'(u): what dr/dbeta should be.

        delta = (1/phi' - W^T)^-1 dl/dr, found by settling, each array read transposed.
        """
        slope = tuple(map(self.activation.slope, u))
        pull = self._pull(weights, self.activation.value(u[-1]), y, fold(key, "pull"))

        def step(delta: States, key: Array | None) -> States:
            back = self._transposed(weights, delta, key)
            back = (*back[:-1], back[-1] + pull)
            return tuple(s * b for s, b in zip(slope, back, strict=True))

        return self._relaxed(step, tuple(map(jnp.zeros_like, u)), self.t_free, key).state

    def _relaxed(self, step: Any, start: States, steps: int, key: Array | None) -> Relaxed:
        at = lambda s, i: step(s, None if key is None else jax.random.fold_in(key, i))  # noqa: E731
        return settled(at, start, self.tol, steps, self.damping)

    def _taught(self, weights: Arrays, x: Array, y: Array, key: Array):
        """One sample: its free equilibrium, the errors of u and of the scores, and these."""
        free = self.settled(weights, x, key=key)
        r = self.activation.value(free.state[-1])
        scores = self._scores(weights, r, fold(key, "scores"))
        e = _softmax(scores) - jax.nn.one_hot(y, len(scores), dtype=scores.dtype)
        if self.exact:
            return free, self.adjoint(weights, y, free.state, key=key), e, scores
        return free, self.response(weights, x, y, free.state, key=key), e, scores

    def _drive(self, weights: Arrays, x: Array, key: Array | None) -> Array:
        """What the input gives to the first layer, held while it settles."""
        return weights["w1"].apply(_with(x, 1), key=fold(key, "drive"))

    def _currents(
        self, weights: Arrays, drive: Array, u: States, key: Array | None,
        nudge: tuple[Array, Array] | None = None,
    ) -> States:  # fmt: skip
        """What each u is asked to become: from below, from above, and by the nudge (beta, y)."""
        r = tuple(map(self.activation.value, u))
        up, down = self._up(weights, r[:-1], 1, key), self._down(weights, r[1:], key)
        last = jnp.zeros_like(u[-1])
        if nudge is not None:
            beta, y = nudge
            last = beta * self._pull(weights, r[-1], y, fold(key, "pull"))
        return _summed(drive.astype(u[0].dtype), up, down, last)

    def _up(self, weights: Arrays, r: States, bias: int, key: Array | None) -> list[Array]:
        """From each layer but the last to the one above it, read with `bias` behind."""
        return [
            _read(weights[f"w{i}"].apply, _with(s, bias), fold(key, f"up{i}"))
            for i, s in enumerate(r, 2)
        ]

    def _down(self, weights: Arrays, r: States, key: Array | None) -> list[Array]:
        """From each layer but the first to the one below it."""
        if not self.tied:
            read = lambda i: weights[f"v{i - 1}"].apply  # noqa: E731
            return [_read(read(i), s, fold(key, f"down{i}")) for i, s in enumerate(r, 2)]
        return [
            _read(weights[f"w{i}"].apply_t, s, fold(key, f"down{i}"))[:-1]
            for i, s in enumerate(r, 2)
        ]

    def _transposed(self, weights: Arrays, delta: States, key: Array | None) -> States:
        """W^T delta: as W delta, where it is symmetric."""
        if self.tied:
            up, down = self._up(weights, delta[:-1], 0, key), self._down(weights, delta[1:], key)
        else:
            arrays = [weights[f"v{i}"] for i in range(1, len(delta))]
            up = [
                _read(v.apply_t, s, fold(key, f"up{i}"))
                for i, (v, s) in enumerate(zip(arrays, delta, strict=False))
            ]
            arrays = [weights[f"w{i}"] for i in range(2, len(delta) + 1)]
            down = [
                _read(w.apply_t, s, fold(key, f"down{i}"))[:-1]
                for i, (w, s) in enumerate(zip(arrays, delta[1:], strict=True))
            ]
        return _summed(jnp.zeros_like(delta[0]), up, down, jnp.zeros_like(delta[-1]))

    def _scores(self, weights: Arrays, r: Array, key: Array | None) -> Array:
        return _read(weights["readout"].apply, _with(r, 1), key)

    def _pull(self, weights: Arrays, r: Array, y: Array, key: Array | None) -> Array:
        """dl/dr of the last layer, R^T (p - y), holomorphic in r."""
        p = _softmax(self._scores(weights, r, fold(key, "scores")))
        e = p - jax.nn.one_hot(y, len(p), dtype=p.dtype)
        return _read(weights["readout"].apply_t, e, key)[:-1]

    def _changes(
        self, weights: Arrays, x: Array, r: States, moved: States, e: Array
    ) -> dict[str, Array]:
        """Ascending changes of a batch, [b, n] each: means, and homeostasis."""
        one, none = jnp.ones((len(x), 1), x.dtype), jnp.zeros((len(x), 1), x.dtype)
        post = {"w1": moved[0], "readout": e}
        pre = {"w1": jnp.concatenate([x, one], 1), "readout": jnp.concatenate([r[-1], one], 1)}
        for i, (a, b, below, above) in enumerate(
            zip(moved, moved[1:], r, r[1:], strict=False), 2
        ):  # what lies below an array and above it: dr/dbeta, and r
            up = jnp.concatenate([below, one], 1)
            post[f"w{i}"], pre[f"w{i}"] = b, up
            if self.tied:  # both ways
                post[f"w{i}"] = jnp.stack([b, above])
                pre[f"w{i}"] = jnp.stack([up, jnp.concatenate([a, none], 1)])
            else:
                post[f"v{i - 1}"], pre[f"v{i - 1}"] = a, above
        dw = {n: -weights[n].outer(post[n], pre[n]) / len(x) for n in weights}
        return dw if self.tied else self._drawn_together(weights, dw)

    def _drawn_together(self, weights: Arrays, dw: dict[str, Array]) -> dict[str, Array]:
        """The descent on |W - W^T|^2 / 2n beside `dw`, of both arrays between two layers."""
        for i in range(1, len(self.sizes) - 1):
            apart = _matrix(weights[f"w{i + 1}"]) - weights[f"v{i}"].w.T
            apart = (2 / sum(self.sizes[1:]) * self.homeostasis).astype(apart.dtype) * apart
            dw[f"w{i + 1}"] = dw[f"w{i + 1}"] - jnp.pad(apart, ((0, 0), (0, 1)))
            dw[f"v{i}"] = dw[f"v{i}"] + apart.T
        return dw


def _circle(n: int, dtype: DTypeLike) -> tuple[Array, Array]:
    """Directions of n nudges, and how many each stands for: their mirror images move alike."""
    k = np.arange(n // 2 + 1)
    shares = jnp.asarray(np.where((k > 0) & (2 * k < n), 2, 1), dtype)
    cos, sin = (jnp.asarray(f(2 * np.pi * k / n), dtype) for f in (np.cos, np.sin))
    return (jax.lax.complex(cos, sin) if n > 2 else cos), shares


def _read(read: Callable[..., Array], s: Array, key: Array | None) -> Array:
    """What an array gives: of a complex `s` by two reads, as it is linear in what drives it."""
    if not jnp.iscomplexobj(s):
        return read(s, key=key)
    keys = None if key is None else jax.random.split(key)
    parts = jax.vmap(lambda s, key: read(s, key=key))(jnp.stack([s.real, s.imag]), keys)
    return jax.lax.complex(*parts)


def _summed(first: Array, up: list[Array], down: list[Array], last: Array) -> States:
    """What arrives at each layer: of the first also `first`, of the last `last`."""
    return tuple(a + b for a, b in zip((first, *up), (*down, last), strict=True))


def _with(s: Array, bias: int) -> Array:
    return jnp.concatenate([s, jnp.full(1, bias, s.dtype)])


def _softmax(z: Array) -> Array:
    """Of complex numbers too, as the largest is taken off as if it were a constant."""
    p = jnp.exp(z - z.real.max().astype(z.dtype))
    return p / p.sum()


def _matrix(w: Weights) -> Array:
    """Without the column of the bias."""
    return w.w[:, :-1]


def __dir__() -> list[str]:
    return __all__
