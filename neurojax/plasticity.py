"""Three-factor plasticity with eligibility traces, step by step and factorised.

    x_t = lambda_t x_{t-1} + pre_t          eligibility_t = kappa_e eligibility_{t-1} + h_t x_t
    dw_ij = sum_t q_{i,t} eligibility_{ij,t},                        q = gate x learning signal

h_t is a local plasticity window on the neuron's own potential, not a derivative. Holding
the eligibility costs a number per synapse, step and sample. Exchanging the sums leaves one
vector per neuron, run backwards in time, and one matrix product:

    Q_t = q_t + kappa_e Q_{t+1},    D_t = h_t Q_t + lambda_{t+1} D_{t+1},    dw = sum_t D_t pre_t^T

exact for weights fixed within a presentation and eligibility that starts from zero.
Source: Bellec et al. (2020), eqs. 2, 5 and 22-25 (eligibility); Gerstner et al. (2018),
eq. 4 (three factors).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from neurojax._check import between, cast, function, nonnegative, optional, positive
from neurojax._repr import described
from neurojax.neurons import ALIF
from neurojax.weights import Connectivity

Window = Callable[[Array, Array, Array], Array]  # (v, threshold, z) -> h
Neuron = Any  # a model of `neurons`, or anyone's own with `init` and `step`


@described
class triangle(eqx.Module):
    """Plasticity window h = max(0, 1 - |v - threshold| / width), all in mV.

    `width`: one number, or one a neuron; v, threshold and h are [n].
    Raises `ValueError` for a width that is not finite and positive.

    >>> rule = nj.ThreeFactor(kappa_e=0.9, window=nj.triangle(width=0.5))

    Source: Bellec et al. (2020), eq. 5.
    """

    width: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("width", "mV"))

    def __call__(self, v: Array, threshold: Array, z: Array) -> Array:
        """The window [n]."""
        return jnp.maximum(0, 1 - jnp.abs(v - threshold) / self.width.astype(v.dtype))


@described
class boxcar(eqx.Module):
    """Plasticity window h = 1 within width / 2 of the threshold, else 0; all in mV.

    `width`: one number, or one a neuron; v, threshold and h are [n].
    Raises `ValueError` for a width that is not finite and positive.
    Source: Kaiser et al. (2020), eq. 9.
    """

    width: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("width", "mV"))

    def __call__(self, v: Array, threshold: Array, z: Array) -> Array:
        """The window [n]."""
        return (jnp.abs(v - threshold) <= self.width.astype(v.dtype) / 2).astype(v.dtype)


class _Always(eqx.Module):
    """Plasticity window h = 1 [n]: plastic whatever the neuron does, as in the delta rule."""

    def __call__(self, v: Array, threshold: Array, z: Array) -> Array:
        return jnp.ones_like(v)

    def __repr__(self) -> str:
        return "always"


class _PostSpike(eqx.Module):
    """Plasticity window h = z [n]: plastic only when the neuron fires (Hebbian coincidence)."""

    def __call__(self, v: Array, threshold: Array, z: Array) -> Array:
        return z

    def __repr__(self) -> str:
        return "post_spike"


always, post_spike = _Always(), _PostSpike()


class Post(NamedTuple):
    """What a synapse may know of its own receiving neuron."""

    h: Float[Array, "*t n"]  # plasticity window
    z: Float[Array, "*t n"]  # spikes


class Eligibility(NamedTuple):
    """State of every synapse in the step-by-step form; arrays shaped like the weights."""

    x: Array  # presynaptic trace as this receiver sees it: its reset may clear it
    x_adapt: Array  # the same through the adapting threshold
    e: Array  # eligibility
    decay: Array  # lambda of the coming step, per neuron


@runtime_checkable
class Rule(Protocol):
    """How the plastic synapses onto a layer learn: `ThreeFactor`, or anyone's own."""

    @property
    def window(self) -> Window:
        """h from v, threshold and z, in every step."""
        ...

    def factor(
        self, neuron: Neuron, post: Post, q: Float[Array, "t n"], *, dt: float
    ) -> Float[Array, "t n"]:
        """D [T, n], the postsynaptic side of the change dw = sum_t D_t pre_t^T."""
        ...


class ThreeFactor(eqx.Module):
    """Which window, and how long a synapse remembers.

    `kappa_e`: decay of the eligibility in a step. `decay`: that of the presynaptic trace;
    None takes the receiver's membrane decay, as e-prop does. With `reset_trace` a spike of
    the receiver clears the trace, as a hard reset forgets what came before it. For ALIF
    receivers the slow threshold is followed exactly (Bellec et al. 2020, eqs. 24-25).
    """

    kappa_e: Float[Array, ""] = eqx.field(default=0.95, converter=between("kappa_e", 0.0, 1.0))
    decay: Float[Array, ""] | None = eqx.field(
        default=None, converter=optional(between("decay", 0.0, 1.0))
    )
    window: Window = function("window", default_factory=triangle)
    reset_trace: bool = eqx.field(static=True, default=True)

    def trace_decay(self, neuron: Neuron, z: Array, dt: float) -> Array:
        """lambda of the step that follows spikes `z`, per neuron."""
        decay = neuron.decay(dt) if self.decay is None else self.decay
        decay = jnp.broadcast_to(decay.astype(z.dtype), z.shape)
        return decay * (1 - z) if self.reset_trace else decay

    def factor(
        self, neuron: Neuron, post: Post, q: Float[Array, "t n"], *, dt: float
    ) -> Float[Array, "t n"]:
        """D [T, n]: one reverse scan over a vector per neuron; dw = outer(D, pre)."""
        adaptation = _adaptation(neuron, dt, q[0])
        kappa = self.kappa_e.astype(q.dtype)

        def back(carry, now):
            big_q, big_d, g = carry
            h, z, q = now
            big_q = q + kappa * big_q
            delta = h * (big_q if g is None else big_q + g)
            big_d = delta + self.trace_decay(neuron, z, dt) * big_d
            return (big_q, big_d, _adapted(adaptation, g, delta)), big_d

        zero = jnp.zeros_like(q[0])
        start = (zero, zero, None if adaptation is None else zero)
        return jax.lax.scan(back, start, (post.h, post.z, q), reverse=True)[1]

    def init(self, connectivity: Connectivity, dtype: DTypeLike = float) -> Eligibility:
        """No memory yet; for the step-by-step form."""
        zero = jnp.zeros(connectivity.shape, dtype)
        return Eligibility(zero, zero, zero, jnp.zeros(connectivity.n_post, dtype))

    def step(
        self,
        state: Eligibility,
        connectivity: Connectivity,
        neuron: Neuron,
        pre: Float[Array, " pre"],
        post: Post,
        q: Float[Array, " n"],
        *,
        dt: float,
    ) -> tuple[Eligibility, Array]:
        """Eligibility after one step, and the change of weights that this step asks for."""
        adaptation = _adaptation(neuron, dt, q)
        at_post = connectivity.at_post
        x = at_post(state.decay) * state.x + connectivity.outer(jnp.ones_like(q), pre)
        local, x_adapt = at_post(post.h) * x, state.x_adapt
        if adaptation is not None:
            rho, beta = adaptation
            local = at_post(post.h) * (x - at_post(beta) * x_adapt)
            x_adapt = at_post(rho) * x_adapt + local
        e = self.kappa_e.astype(q.dtype) * state.e + local
        return Eligibility(x, x_adapt, e, self.trace_decay(neuron, post.z, dt)), at_post(q) * e


def _adaptation(neuron: Neuron, dt: float, like: Array) -> tuple[Array, Array] | None:
    """Decay of the adaptation and its weight on the threshold, each [n]; None without."""
    if not isinstance(neuron, ALIF):
        return None
    each = lambda x: jnp.broadcast_to(x.astype(like.dtype), like.shape)  # noqa: E731
    return each(jnp.exp(-dt / neuron.tau_adapt)), each(neuron.beta_adapt)


def _adapted(adaptation, g, delta):
    """G one step earlier: what the adaptation of that step still does to later ones."""
    if adaptation is None:
        return None
    rho, beta = adaptation
    return rho * g - beta * delta


class HomeostasisState(NamedTuple):
    """What a population knows of its own excitability."""

    v_th: Float[Array, " n"]  # threshold, mV
    r: Float[Array, " n"]  # spikes per step, mean over the last batch


class Homeostasis(eqx.Module):
    """Each neuron moves its own threshold until it fires at the target rate.

        v_th <- max(v_min, v_th + rate (r - target))            r: its mean spikes per step

    With `penalty` c the same difference also enters its learning signal, l - c (r - target).
    Source: intrinsic plasticity as in Lazar et al. (2009), SORN, eq. 5.
    """

    target: Float[Array, ""] = eqx.field(default=0.05, converter=between("target", 0.0, 1.0))
    rate: Float[Array, ""] = eqx.field(default=0.5, converter=nonnegative("rate", "mV"))
    v_min: Float[Array, ""] = eqx.field(default=0.05, converter=positive("v_min", "mV"))
    penalty: Float[Array, ""] = eqx.field(default=0.0, converter=nonnegative("penalty", ""))

    def init(self, v_th: Float[Array, " n"]) -> HomeostasisState:
        """At its target, from thresholds `v_th`."""
        return HomeostasisState(v_th, jnp.full_like(v_th, self.target))

    def step(
        self, state: HomeostasisState, r: Float[Array, " n"], scale: float | Array = 1.0
    ) -> HomeostasisState:
        """After a batch with mean rates `r`; `scale` anneals the move."""
        p = cast(self, r.dtype)
        move = p.rate * jnp.asarray(scale, r.dtype) * (r - p.target)
        return HomeostasisState(jnp.maximum(p.v_min, state.v_th + move), r)

    def term(self, state: HomeostasisState) -> Float[Array, " n"]:
        """What is added to the learning signal of each neuron."""
        p = cast(self, state.r.dtype)
        return -p.penalty * (state.r - p.target)
