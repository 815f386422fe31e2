"""DECOLLE: a fixed random readout at each spiking layer, whose error at each step is its own.

    Q_t = beta Q_(t-1) + (1 - beta) s_t,   P_t = alpha P_(t-1) + (1 - alpha) r_mem Q_t
    u_t = W [P_t, Pone_t] - R_t,           z_t = 1 where u_t >= v_th
    y_t = G z_t,   e_t = y_t - one-hot,    dW = - mean_t (G^T e_t o h(u_t)) P_t^T

P is a trace of each sender, shared by all its receivers; R what is left of the resets; h a window
about the threshold. Nothing comes from another layer, and nothing from a later step.
Source: Kaiser, Mostafa and Neftci (2020), Synaptic plasticity dynamics for deep continuous local
learning (DECOLLE), Front. Neurosci. 14, 424, Methods; the window is its eq. 9.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from neurojax._check import (
    classes,
    count,
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
from neurojax.learning.learner import Info, Samples, accuracy, programmed
from neurojax.learning.perceptron import drawn, layer_sizes
from neurojax.network import fold
from neurojax.neurons.leaky import LIF
from neurojax.plasticity.three_factor import Post, Window, boxcar
from neurojax.plasticity.traces import low_pass
from neurojax.weights import MakeWeights, Weights, ideal

__all__ = ["Decolle", "DecolleState"]


class DecolleState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "w1" to "wL" of the hidden layers, [n, n_below + 1]
        readouts: list of float [n_classes, n]; G of each layer, which never learn
        opt_state: any; that of the optax transformation
    """

    weights: dict[str, Weights]
    readouts: list[Float[Array, "c _"]]
    opt_state: Any


def _srm(neuron: Any) -> Any:
    if not isinstance(unheld(neuron), LIF) or neuron.reset != "subtract":
        raise ValueError(
            "neuron must be an LIF that resets by 'subtract', as all receivers share a trace; got"
            f" {type(neuron).__name__} of reset {neuron.reset!r}"
        )
    return neuron


@described
class Decolle(eqx.Module):
    """Spiking layers of `sizes`, (n_in, hidden ..., n_classes), each taught by its own readout.

    A `Learner`. A sample is [n_in], held for `n_steps` steps of `dt` ms, or [T, n_in]; those of
    `data.Rasters` each have a length of their own. Errors and
    scores count from step `start` on; scores are the mean of the last layer's readout.
    `tau_syn`, ms, is that of Q, the neuron's `tau_mem` that of P. What all steps ask for is
    programmed once a batch, through `tx`, an optax transformation. First weights are Gaussian of
    standard deviation gain / sqrt(fan-in), readouts of 1 / sqrt(n).
    Raises `ValueError` for sizes that are not three or more whole numbers >= 1 and a neuron that
    is refractory or resets to a value; `TypeError` for a class in place of its instance.

    >>> import optax
    >>> net = nj.learning.Decolle((64, 32, 10), optax.adam(1e-3))
    >>> state = net.init(jax.random.key(0))
    >>> x, y = jnp.ones((2, 64)), jnp.array([0, 2])
    >>> state, info = net.step(state, x, y, key=jax.random.key(1))
    >>> net.predict(state, x).shape
    (2, 10)
    """

    sizes: tuple = eqx.field(static=True, converter=layer_sizes)
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    neuron: LIF = eqx.field(
        default_factory=lambda: LIF(tau_mem=10.0, reset="subtract"), converter=_srm
    )
    tau_syn: Float[Array, ""] = eqx.field(default=5.0, converter=positive("tau_syn", "ms"))
    window: Window = function("window", default_factory=lambda: boxcar(2.0))
    gain: float | Array = eqx.field(
        default=8.0, converter=lambda x: known_finite("gain", real(x, "gain"))
    )
    n_steps: int = eqx.field(static=True, default=20, converter=count("n_steps"))
    start: int = eqx.field(static=True, default=8, converter=count("start", 0))
    dt: float | Array = eqx.field(default=1.0, converter=step_size)

    def __check_init__(self):
        hidden_layers(self.sizes)
        early(self.start, self.n_steps)

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> DecolleState:
        """Fresh weights and fixed readouts."""
        hidden = self.sizes[1:-1]
        weights = drawn(prng_key(key), self.sizes[:-1], make_weights, self.gain)
        g = [
            jax.random.normal(fold(key, f"G{i}"), (self.sizes[-1], n)) / n**0.5
            for i, n in enumerate(hidden, 1)
        ]
        return DecolleState(weights, g, self.tx.init({n: w.w for n, w in weights.items()}))

    def step(
        self, state: DecolleState, x: Samples, y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[DecolleState, Info]:  # fmt: skip
        """Learn from one batch, each layer from its own readout."""
        dw, told, rates, ends = {}, jnp.zeros(()), {}, lengths(x, self.start)
        for i, (name, s, post, g) in enumerate(self._passed(state, x, fold(key, "read"))):
            told = post.z @ g.T
            d = late(self._errors(told, y), self.start, ends) @ g * post.h
            dw[name] = outer(state.weights[name], *self._paired(d, s)) / len(y)
            rates[f"rate{i + 1}"] = spikes_a_step(post.z, ends)
        weights, opt_state = programmed(self.tx, state.weights, state.opt_state, dw, key)
        info = {"accuracy": accuracy(decided(told, self.start, ends), y)} | rates
        return DecolleState(weights, state.readouts, opt_state), info

    def predict(
        self, state: DecolleState, x: Samples, *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "b c"]:
        """Scores [batch, n_classes] of the last layer's readout."""
        *_, (_, _, post, g) = self._passed(state, x, key)
        return decided(post.z, self.start, lengths(x, self.start)) @ g.T

    def _passed(self, state: DecolleState, x: Any, key: Array | None):
        """Layer by layer: its name, what it hears, window and spikes [T, b, n], its readout."""
        s = shown(x, self.sizes[0], self.start)
        n_steps = self.n_steps if s.ndim == 2 else len(s)
        for i, ((name, w), g) in enumerate(zip(state.weights.items(), state.readouts, strict=True)):
            heard = biased(s)
            post = self._fired(arriving(w, heard, n_steps, at(key, i)))
            yield name, heard, post, g
            s = post.z

    def _fired(self, current: Float[Array, "t b n"]) -> Post:
        """Window and spikes of a layer under the currents that arrive."""
        beta = self._beta(current.dtype)

        def step(carry, i):
            q, state = carry
            q = beta * q + (1 - beta) * i
            state, post = stepped(self.neuron, self.window, state, q, self.dt)
            return (q, state), post

        rest = resting(self.neuron, current.shape[1:], current.dtype)
        return jax.lax.scan(step, (jnp.zeros_like(current[0]), rest), current)[1]

    def _beta(self, dtype: Any) -> Array:
        return jnp.exp(-jnp.asarray(self.dt, dtype) / self.tau_syn.astype(dtype))

    def _errors(self, told: Float[Array, "t b c"], y: Int[Array, " b"]) -> Float[Array, "t b c"]:
        """Ascending: one-hot - y_t."""
        y = classes("y", y, told.shape[-1], told.shape[1])
        return jax.nn.one_hot(y, told.shape[-1], dtype=told.dtype)[None] - told

    def _paired(self, d: Float[Array, "t b n"], s: Float[Array, "*t b pre"]):
        """D_t and P_t; of what is held P_t is one number a step, which goes to D."""
        if s.ndim == 3:
            return d, self._trace(s)
        return d * self._trace(jnp.ones(len(d), d.dtype))[:, None, None], s

    def _trace(self, s: Float[Array, "t ..."]) -> Float[Array, "t ..."]:
        """P_t, mV a nA, of what each sender sends."""
        beta, alpha = self._beta(s.dtype), self.neuron.decay(self.dt).astype(s.dtype)
        return (
            low_pass(low_pass(s, beta), alpha)
            * (1 - beta)
            * worth(self.neuron, self.dt).astype(s.dtype)
        )


def hidden_layers(sizes: tuple[int, ...]) -> None:
    """Refuse sizes without a hidden layer."""
    if len(sizes) < 3:
        raise ValueError(f"sizes must be (n_in, hidden ..., n_classes), three or more; got {sizes}")


def early(start: int, n_steps: int) -> None:
    """Refuse a start that no step comes after."""
    if not start < n_steps:
        raise ValueError(f"start must be in [0, {n_steps}); got {start}")


def __dir__() -> list[str]:
    return __all__
