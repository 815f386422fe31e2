"""E-prop: eligibility traces that meet an error broadcast from a leaky readout.

    v_t = alpha v_(t-1) + (1 - alpha) r_mem I_t - reset,  I_t = W_in [s_t, 1] + W_rec z_(t-1)
    y_t = kappa y_(t-1) + (1 - kappa) W_out [z_t, 1],     e_t = softmax(y_t) - one-hot
    L_t = B e_t,   dW_ji = - mean_t L_(j,t) F_kappa(h_j,t (x_i - beta_adapt a_ji))_t
    dW_out = - mean_t e_t F_kappa([z, 1])_t^T

x is the low-passed sender, a the adaptation's part of the eligibility (0 for LIF), h a window on
the potential, F_kappa the low-pass of the readout. Without recurrence, and with B = W_out^T, this
is the gradient through time; with recurrence what an influence does by way of other neurons is
left out.
Source: Bellec et al. (2020), A solution to the learning dilemma for recurrent networks of spiking
neurons, eqs. 1, 4 (learning signal), 2, 22-25 (eligibility).
"""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from neurojax._check import (
    choice,
    classes,
    count,
    flag,
    function,
    instance,
    known_finite,
    positive,
    prng_key,
    real,
    step_size,
)
from neurojax._repr import described
from neurojax.learning._spiking import (
    arriving,
    at,
    biased,
    decided,
    late,
    lengths,
    outer,
    resting,
    shown,
    spikes_a_step,
    stepped,
    unheld,
    worth,
)
from neurojax.learning.decolle import early, hidden_layers
from neurojax.learning.learner import Info, Samples, accuracy, backward, error, forward, programmed
from neurojax.learning.perceptron import layer_sizes
from neurojax.network import fold
from neurojax.neurons.leaky import ALIF, LIF
from neurojax.plasticity.three_factor import Post, ThreeFactor, Window, triangle
from neurojax.plasticity.traces import low_pass, low_pass_reversed
from neurojax.weights import MakeWeights, Weights, ideal, normal
from neurojax.wiring.layouts import Dense

__all__ = ["EProp", "EPropState"]


class EPropState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "w1" to "wL" from below, [n, n_below + 1], "r1" to "rL"
            within a layer, [n, n], and "out" from all layers, [n_classes, sum n + 1]
        feedback: list of float [n, n_classes]; B of each layer; None where "out" is read back
        opt_state: any; that of the optax transformation
    """

    weights: dict[str, Weights]
    feedback: list[Float[Array, "_ c"]] | None
    opt_state: Any


class _Seen(NamedTuple):
    """What a batch did; time leads."""

    s: Float[Array, "..."]  # input with its 1, [b, n] held, or [T, b, n]
    post: list[Post]  # windows and spikes of each layer, [T, b, n]
    y: Float[Array, "t b c"]  # readout

    @property
    def spikes(self) -> Float[Array, "t b n"]:
        return biased(jnp.concatenate([p.z for p in self.post], -1))


@described
class EProp(eqx.Module):
    """Recurrent spiking layers of `sizes`, (n_in, hidden ..., n_classes); a `Learner`.

    Each layer hears the one below in the same step and itself one step later, unless `recurrent`
    is False; a leaky readout of time constant `tau_out`, ms, hears all. `feedback` "random"
    carries the error through fixed Gaussian weights, "symmetric" reads the readout's own weights
    back. A sample is [n_in], held for `n_steps` steps of `dt` ms, or [T, n_in]. Errors and scores
    count from step `start` on; scores are the mean of the readout. `tx` is an optax
    transformation. First weights are Gaussian of standard deviation gain / sqrt(fan-in), where
    that of recurrent and readout weights is 1 / sqrt(fan-in).
    Memory is that of what neurons did, [T, b, n]: no synapse holds a trace.
    Raises `ValueError` for sizes that are not three or more whole numbers >= 1, and a neuron that
    is refractory; `TypeError` for a class in place of its instance.

    >>> import optax
    >>> net = nj.learning.EProp((64, 32, 10), optax.adam(1e-3), nj.ALIF(reset="subtract"))
    >>> state = net.init(jax.random.key(0))
    >>> x, y = jnp.ones((2, 64)), jnp.array([0, 2])
    >>> state, info = net.step(state, x, y, key=jax.random.key(1))
    >>> net.predict(state, x).shape
    (2, 10)
    """

    sizes: tuple = eqx.field(static=True, converter=layer_sizes)
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    neuron: LIF | ALIF = eqx.field(
        default_factory=lambda: LIF(tau_mem=10.0, reset="subtract"), converter=unheld
    )
    tau_out: Float[Array, ""] = eqx.field(default=5.0, converter=positive("tau_out", "ms"))
    window: Window = function("window", default_factory=triangle)
    feedback: Literal["random", "symmetric"] = eqx.field(
        static=True, default="random", converter=choice("feedback", "random", "symmetric")
    )
    recurrent: bool = eqx.field(static=True, default=True, converter=flag("recurrent"))
    gain: float | Array = eqx.field(
        default=3.0, converter=lambda x: known_finite("gain", real(x, "gain"))
    )
    n_steps: int = eqx.field(static=True, default=20, converter=count("n_steps"))
    start: int = eqx.field(static=True, default=5, converter=count("start", 0))
    dt: float | Array = eqx.field(default=1.0, converter=step_size)

    def __check_init__(self):
        hidden_layers(self.sizes)
        early(self.start, self.n_steps)

    @property
    def hidden(self) -> tuple[int, ...]:
        """Neurons of each hidden layer."""
        return self.sizes[1:-1]

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> EPropState:
        """Fresh weights and feedback."""
        key, weights = prng_key(key), {}
        for i, (below, n) in enumerate(zip(self.sizes, self.hidden, strict=False), 1):
            weights[f"w{i}"] = _made(fold(key, f"w{i}"), below, n, True, self.gain, make_weights)
            if self.recurrent:
                weights[f"r{i}"] = _made(fold(key, f"r{i}"), n, n, False, 1.0, make_weights)
        out = sum(self.hidden), self.sizes[-1]
        weights["out"] = _made(fold(key, "out"), *out, True, 1.0, make_weights)
        b = None
        if self.feedback == "random":
            b = [
                jax.random.normal(fold(key, f"B{i}"), (n, out[1])) / out[0] ** 0.5
                for i, n in enumerate(self.hidden, 1)
            ]
        return EPropState(weights, b, self.tx.init({n: w.w for n, w in weights.items()}))

    def step(
        self, state: EPropState, x: Samples, y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[EPropState, Info]:  # fmt: skip
        """Learn from one batch."""
        ends, seen = lengths(x, self.start), self._passed(state.weights, x, fold(key, "read"))
        dw = self._changes(state, seen, y, ends, fold(key, "back"))
        weights, opt_state = programmed(self.tx, state.weights, state.opt_state, dw, key)
        rates = {f"rate{i}": spikes_a_step(p.z, ends) for i, p in enumerate(seen.post, 1)}
        info = {"accuracy": accuracy(decided(seen.y, self.start, ends), y)} | rates
        return EPropState(weights, state.feedback, opt_state), info

    def predict(
        self, state: EPropState, x: Samples, *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "b c"]:
        """Scores [batch, n_classes]."""
        seen = self._passed(state.weights, x, key)
        return decided(seen.y, self.start, lengths(x, self.start))

    def _passed(self, weights: dict[str, Weights], x: Any, key: Array | None) -> _Seen:
        """A batch over time."""
        s = shown(x, self.sizes[0], self.start)
        n_steps = self.n_steps if s.ndim == 2 else len(s)
        s = biased(s)
        drive = arriving(weights["w1"], s, n_steps, at(key, 0))
        rest = [resting(self.neuron, (s.shape[-2], n), s.dtype) for n in self.hidden]

        def step(states, now):
            t, current = now
            here, new, posts = at(key, t + 2), [], []
            for i, state in enumerate(states, 1):
                if i > 1:
                    current = forward(weights[f"w{i}"], biased(posts[-1].z), at(here, 2 * i))
                if self.recurrent:
                    current = current + forward(weights[f"r{i}"], state.z, at(here, 2 * i + 1))
                state, post = stepped(self.neuron, self.window, state, current, self.dt)
                new.append(state)
                posts.append(post)
            return new, posts

        _, post = jax.lax.scan(step, rest, (jnp.arange(n_steps), drive))
        seen = _Seen(s, post, drive)
        kappa = self._kappa(s.dtype)
        out = arriving(weights["out"], seen.spikes, n_steps, at(key, 1))
        return seen._replace(y=low_pass(out, kappa) * (1 - kappa))

    def _changes(
        self, state: EPropState, seen: _Seen, y: Int[Array, " b"], ends: Array | None, key: Array
    ) -> dict:
        """Ascending changes of all weights, means over the batch."""
        e, weights, dw = late(self._errors(seen.y, y), self.start, ends), state.weights, {}
        heard: list[Array] = [seen.s, *(biased(p.z) for p in seen.post[:-1])]
        for i, (s, post, q) in enumerate(
            zip(heard, seen.post, self._signals(state, e, key), strict=True), 1
        ):
            d = self._factors(post, q)
            dw[f"w{i}"] = outer(weights[f"w{i}"], d, s)
            if self.recurrent:
                dw[f"r{i}"] = outer(weights[f"r{i}"], d[1:], post.z[:-1])
        kappa = self._kappa(e.dtype)
        back = low_pass_reversed(e, kappa) * (1 - kappa)
        dw["out"] = outer(weights["out"], back, seen.spikes)
        return {n: d / len(y) for n, d in dw.items()}

    def _signals(self, state: EPropState, e: Float[Array, "t b c"], key: Array) -> list[Array]:
        """What each neuron of each layer is told in each step, [T, b, n]."""
        if state.feedback is not None:
            return [e @ b.T for b in state.feedback]
        told = backward(state.weights["out"], e.reshape(-1, e.shape[-1]), key)
        ends = [sum(self.hidden[: i + 1]) for i in range(len(self.hidden))]
        return jnp.split(told.reshape(*e.shape[:2], -1), ends, -1)[:-1]

    def _factors(self, post: Post, q: Float[Array, "t b n"]) -> Float[Array, "t b n"]:
        """D_t, such that dw = sum_t D_t pre_t^T."""
        kappa = self._kappa(q.dtype)
        rule = ThreeFactor(kappa, reset_trace=self.neuron.reset == "hard")
        each = jax.vmap(lambda p, q: rule.factor(self.neuron, p, q, dt=self.dt), 1, 1)
        return each(post, q) * (1 - kappa) * worth(self.neuron, self.dt).astype(q.dtype)

    def _errors(self, told: Float[Array, "t b c"], y: Int[Array, " b"]) -> Float[Array, "t b c"]:
        """one-hot - softmax(y_t), ascending."""
        y = classes("y", y, told.shape[-1], told.shape[1])
        return -jax.vmap(lambda told: error(told, y))(told)

    def _kappa(self, dtype: Any) -> Array:
        return jnp.exp(-jnp.asarray(self.dt, dtype) / self.tau_out.astype(dtype))


def _made(
    key: Array, n_pre: int, n_post: int, bias: bool, gain: float | Array, make: MakeWeights
) -> Weights:
    """An array of first weights, its biases 0 in the last column."""
    w = normal(fold(key, "first"), Dense(n_pre, n_post), gain)
    if bias:
        w = jnp.concatenate([w, jnp.zeros((n_post, 1), w.dtype)], 1)
    return make(w, Dense(n_pre + bias, n_post), fold(key, "make"))


def __dir__() -> list[str]:
    return __all__
