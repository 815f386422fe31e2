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
from jaxtyping import Array, Float, Shaped

from neurojax._check import (
    between,
    cast,
    flag,
    function,
    known_finite,
    nonnegative,
    numbers,
    one_number,
    optional,
    positive,
    real,
    step_size,
    working,
)
from neurojax._repr import described
from neurojax.neurons.leaky import ALIF
from neurojax.wiring.sparse import Connectivity

__all__ = [
    "Eligibility", "Homeostasis", "HomeostasisState", "Post", "Rule", "ThreeFactor",
    "Window", "always", "boxcar", "post_spike", "triangle",
]  # fmt: skip

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

    >>> nj.boxcar(1.0)(jnp.array([0.4, 0.6]), jnp.ones(2), jnp.zeros(2))
    Array([0., 1.], dtype=float32)
    """

    width: Float[Array, "*#n"] = eqx.field(default=1.0, converter=positive("width", "mV"))

    def __call__(self, v: Array, threshold: Array, z: Array) -> Array:
        """The window [n]."""
        return (jnp.abs(v - threshold) <= self.width.astype(v.dtype) / 2).astype(v.dtype)


class _Always(eqx.Module):
    """Plasticity window h = 1 [n]: plastic whatever the neuron does, as in the delta rule.

    >>> rule = nj.ThreeFactor(kappa_e=0.0, window=nj.always)
    """

    def __call__(self, v: Array, threshold: Array, z: Array) -> Array:
        return jnp.ones_like(real(v, "v"))

    def __repr__(self) -> str:
        return "always"


class _PostSpike(eqx.Module):
    """Plasticity window h = z [n]: plastic only when the neuron fires (Hebbian coincidence).

    >>> rule = nj.ThreeFactor(window=nj.post_spike)
    """

    def __call__(self, v: Array, threshold: Array, z: Array) -> Array:
        return known_finite("z", real(z, "z"))

    def __repr__(self) -> str:
        return "post_spike"


always, post_spike = _Always(), _PostSpike()


class Post(NamedTuple):
    """What a synapse may know of its own receiving neuron.

    Fields:
        h: float [n]; plasticity window, without unit; [T, n] of a presentation
        z: float [n]; spikes, 0 or 1; likewise
    """

    h: Float[Array, "*t n"]
    z: Float[Array, "*t n"]


class Eligibility(NamedTuple):
    """State of every synapse in the step-by-step form, in the shape of the weights w.

    Fields:
        x: float, shaped as w; presynaptic trace as this receiver sees it: its reset may clear it
        x_adapt: float, shaped as w; the same through the adapting threshold
        e: float, shaped as w; eligibility
        decay: float [n_post]; lambda of the coming step, without unit
    """

    x: Array
    x_adapt: Array
    e: Array
    decay: Array


@runtime_checkable
class Rule(Protocol):
    """How the plastic synapses onto a layer learn: `ThreeFactor`, or anyone's own."""

    @property
    def window(self) -> Window:
        """h [n] from v (mV), threshold (mV) and z, in every step."""
        ...

    def factor(
        self, neuron: Neuron, post: Post, q: Float[Array, "t n"], *, dt: float | Array
    ) -> Float[Array, "t n"]:
        """D [T, n], the postsynaptic side of the change dw = sum_t D_t pre_t^T."""
        ...


@described
class ThreeFactor(eqx.Module):
    """Three-factor rule with eligibility traces: which window, how long a synapse remembers.

        x_t = lambda_t x_{t-1} + pre_t      e_t = kappa_e e_{t-1} + h_t x_t      dw_t = q_t e_t

    `kappa_e`: decay of the eligibility e in a step. `decay`: lambda, that of the presynaptic
    trace x; None takes the receiver's membrane decay, as e-prop does. `window` gives h of the
    receiver's potential (mV), and q is its gated learning signal. With `reset_trace` a spike of
    the receiver clears the trace, as a hard reset forgets what came before it. For ALIF
    receivers the slow threshold is followed exactly (Bellec et al. 2020, eqs. 24-25).
    `factor` gives the changes of a whole presentation as D [T, n], `step` those of one step.

    >>> rule = nj.ThreeFactor(kappa_e=0.5, decay=0.5, window=nj.always)
    >>> post = nj.Post(h=jnp.ones((3, 1)), z=jnp.zeros((3, 1)))  # [T, n], three steps
    >>> q = jnp.array([[0.0], [0.0], [1.0]])  # what is learned is told in the last one
    >>> rule.factor(nj.LIF(), post, q, dt=1.0)[:, 0]  # what a spike of each step is worth
    Array([0.75, 1.  , 1.  ], dtype=float32)
    """

    kappa_e: Float[Array, ""] = eqx.field(default=0.95, converter=between("kappa_e", 0.0, 1.0))
    decay: Float[Array, ""] | None = eqx.field(
        default=None, converter=optional(between("decay", 0.0, 1.0))
    )
    window: Window = function("window", default_factory=triangle)
    reset_trace: bool = eqx.field(static=True, default=True, converter=flag("reset_trace"))

    def trace_decay(self, neuron: Neuron, z: Array, dt: float | Array) -> Array:
        """lambda of the step that follows spikes `z`, per neuron."""
        decay = neuron.decay(dt) if self.decay is None else self.decay
        decay = jnp.broadcast_to(decay.astype(z.dtype), z.shape)
        return decay * (1 - z) if self.reset_trace else decay

    def factor(
        self, neuron: Neuron, post: Post, q: Shaped[Array, "t n"], *, dt: float | Array
    ) -> Float[Array, "t n"]:
        """D [T, n]: one reverse scan over a vector per neuron; dw = outer(D, pre).

        Calculated in float32 at the least, and returned in the dtype of `q`.
        Raises `ValueError` where windows, spikes and `q` are not all [T, n].
        """
        step_size(dt)
        one_number(self, "kappa_e", "decay")
        h, z, q = numbers("h", post.h), numbers("z", post.z), real(q, "q")
        _alike(h, z, q, ("T", "n"))
        stored, zero = q.dtype, jnp.zeros(q.shape[1:], working(q.dtype))
        adaptation = _adaptation(neuron, dt, zero)
        kappa = self.kappa_e.astype(zero.dtype)

        def back(carry, now):
            big_q, big_d, g = carry
            # One step of them at a time as floats: spikes may be a byte each.
            h, z, q = (real(x).astype(zero.dtype) for x in now)
            big_q = q + kappa * big_q
            delta = h * (big_q if g is None else big_q + g)
            big_d = delta + self.trace_decay(neuron, z, dt) * big_d
            return (big_q, big_d, _adapted(adaptation, g, delta)), big_d.astype(stored)

        start = (zero, zero, None if adaptation is None else zero)
        return jax.lax.scan(back, start, (h, z, q), reverse=True)[1]

    def init(self, connectivity: Connectivity, dtype: DTypeLike = float) -> Eligibility:
        """No memory yet; for the step-by-step form."""
        zero = jnp.zeros(connectivity.shape, dtype)
        return Eligibility(zero, zero, zero, jnp.zeros(connectivity.n_post, dtype))

    def step(
        self,
        state: Eligibility,
        connectivity: Connectivity,
        neuron: Neuron,
        pre: Shaped[Array, " pre"],
        post: Post,
        q: Shaped[Array, " n"],
        *,
        dt: float | Array,
    ) -> tuple[Eligibility, Array]:
        """Eligibility after one step, and the change of weights that this step asks for.

        `pre` [n_pre] is what arrives, `post` and `q` [n_post] are the receiver's own. All is
        calculated in float32 at the least and kept in the dtype of `state`.
        """
        step_size(dt)
        one_number(self, "kappa_e", "decay")
        stored, at_post = state.e.dtype, connectivity.at_post
        pre, own = real(pre), _matching(post, q, ("n",))
        state, pre, (h, z, q) = cast((state, pre, own), working(stored))
        adaptation = _adaptation(neuron, dt, q)
        x = at_post(state.decay) * state.x + connectivity.outer(jnp.ones_like(q), pre)
        local, x_adapt = at_post(h) * x, state.x_adapt
        if adaptation is not None:
            rho, beta = adaptation
            local = at_post(h) * (x - at_post(beta) * x_adapt)
            x_adapt = at_post(rho) * x_adapt + local
        e = self.kappa_e.astype(q.dtype) * state.e + local
        new = Eligibility(x, x_adapt, e, self.trace_decay(neuron, z, dt))
        return cast((new, at_post(q) * e), stored)


def _matching(post: Post, q: Array, axes: tuple[str, ...]) -> tuple[Array, Array, Array]:
    """Windows, spikes and third factor as floats, refused unless of one shape."""
    h, z, q = map(real, (post.h, post.z, q))
    _alike(h, z, q, axes)
    return h, z, q


def _alike(h: Array, z: Array, q: Array, axes: tuple[str, ...]) -> None:
    """Refuse windows, spikes and a third factor that are not of one shape."""
    if not h.shape == z.shape == q.shape or q.ndim != len(axes):
        raise ValueError(
            f"h, z and q must all be [{', '.join(axes)}]; got {h.shape}, {z.shape} and {q.shape}:"
            " jax.vmap over a batch"
        )


def _adaptation(neuron: Neuron, dt: float | Array, like: Array) -> tuple[Array, Array] | None:
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
    """What a population knows of its own excitability.

    Fields:
        v_th: float [n], mV; threshold
        r: float [n]; spikes a step, mean over the last batch
    """

    v_th: Float[Array, " n"]
    r: Float[Array, " n"]


@described
class Homeostasis(eqx.Module):
    """Each neuron moves its own threshold until it fires at the target rate.

        v_th <- max(v_reset + v_min, v_th + rate (r - target))     r: its mean spikes per step

    The floor keeps v_th above the neuron's reset, whatever potentials are counted from; a
    threshold that starts below it stays, and sinks no further. With `penalty` c the same
    difference also enters its learning signal, l - c (r - target), before any gate.
    `target` in spikes a neuron and step, `rate` in mV for each of these, `v_min` in mV,
    `penalty` in units of the error. Each is a number.
    Raises `ValueError` for a parameter out of range.
    Source: intrinsic plasticity as in Lazar et al. (2009), SORN, eq. 5.

    >>> tone = nj.Homeostasis(target=0.05, rate=2.0)
    >>> state = tone.init(jnp.array([-50.0, -50.0]))  # mV
    >>> tone.step(state, jnp.array([0.05, 0.30]), v_reset=-65.0).v_th
    Array([-50. , -49.5], dtype=float32)
    """

    target: Float[Array, ""] = eqx.field(default=0.05, converter=between("target", 0.0, 1.0))
    rate: Float[Array, ""] = eqx.field(default=0.5, converter=nonnegative("rate", "mV"))
    v_min: Float[Array, ""] = eqx.field(default=0.05, converter=positive("v_min", "mV"))
    penalty: Float[Array, ""] = eqx.field(default=0.0, converter=nonnegative("penalty", ""))

    def init(self, v_th: Float[Array, " n"]) -> HomeostasisState:
        """At its target, from thresholds `v_th` [n], mV."""
        return HomeostasisState(v_th, jnp.full_like(v_th, self.target))

    def step(
        self,
        state: HomeostasisState,
        r: Float[Array, " n"],
        scale: float | Array = 1.0,
        *,
        v_reset: float | Array | None = None,
    ) -> HomeostasisState:
        """After a batch with mean rates `r` [n], spikes a step; `scale` anneals the move.

        `v_reset`: where the neurons restart, mV, one number or [n]. None stands for 0 mV where
        the threshold is above that, and elsewhere for no floor, as it isn't known.
        """
        one_number(self)
        stored = state.v_th.dtype
        p, v_th, r = cast((self, state.v_th, r), working(stored))
        to = lambda x: jnp.broadcast_to(jnp.asarray(x, r.dtype), r.shape)  # noqa: E731
        moved = v_th + p.rate * to(scale) * (r - p.target)
        floor = jnp.minimum(to(0.0 if v_reset is None else v_reset) + p.v_min, v_th)
        if v_reset is None:
            floor = jnp.where(v_th > 0, floor, -jnp.inf)
        return cast(HomeostasisState(jnp.maximum(floor, moved), r), stored)

    def term(self, state: HomeostasisState) -> Float[Array, " n"]:
        """What is added to the learning signal of each neuron, [n]."""
        p = cast(self, state.r.dtype)
        return -p.penalty * (state.r - p.target)


def __dir__() -> list[str]:
    return __all__
