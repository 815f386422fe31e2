"""NoProp: blocks that each learn alone to tell the label from the input and a noised label.

    while learning    z_(t-1) = sqrt(abar_(t-1)) u_y + sqrt(1 - abar_(t-1)) eps,    t = 1 .. T
                      block t descends  1/2 |uhat_t(z_(t-1), x) - u_y|^2
    afterwards        z_0 ~ N(0, I),    z_t = a_t uhat_t(z_(t-1), x) + b_t z_(t-1) + sqrt(c_t) eps
                      alpha = abar_(t-1) / abar_t
                      a_t = sqrt(abar_t) (1 - alpha) / (1 - abar_(t-1))
                      b_t = sqrt(alpha) (1 - abar_t) / (1 - abar_(t-1))
                      c_t = (1 - abar_t) (1 - alpha) / (1 - abar_(t-1))

u_y is the label one-hot. No block needs another while it learns, so all are stacked and learn in
one `vmap`, bit for bit as each does alone (`only`). Of the published loss two factors are left
out: the weight of block t, which is a learning rate of that block alone, and the readout of z_T,
whose best is known for one-hot labels: the largest of z_T.
Source: Li, Teh and Pascanu (2025), arXiv 2503.24322 (discrete time, one-hot labels).
"""

from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, Key

from neurojax._check import (
    Converter,
    brief,
    classes,
    count,
    flag,
    instance,
    kind,
    positive,
    prng_key,
)
from neurojax._repr import described
from neurojax.learning import wta_broadcast
from neurojax.learning._system import System
from neurojax.learning.learner import Info, accuracy, backward, forward, programmed
from neurojax.learning.perceptron import drawn, flat, relu, with_one
from neurojax.network import fold
from neurojax.plasticity.teaching import SoftWTA
from neurojax.weights import MakeWeights, Weights, ideal

__all__ = [
    "Block", "Coefficients", "MLPBlock", "NoProp", "NoPropState", "NoPropPath", "NoiseSchedule",
    "SpikingBlock", "cosine_noise",
]  # fmt: skip


class Coefficients(NamedTuple):
    """How block t moves z: z_t = a u + b z_(t-1) + sqrt(c) eps; without unit.

    Fields:
        a: float [T]; of what the block believes
        b: float [T]; of what came in
        c: float [T]; variance of the noise
    """

    a: Float[Array, " t"]
    b: Float[Array, " t"]
    c: Float[Array, " t"]


class NoiseSchedule(eqx.Module):
    """How much of the label is in z_t, and how much noise, for t = 0 to T; without unit.

    `alpha_bar` [T + 1] rises within (0, 1), of one block at least. `cosine_noise` makes one.
    Raises `ValueError` where it does not.

    >>> s = nj.learning.NoiseSchedule([0.25, 0.5, 0.75])
    >>> s.n_blocks, s.snr[1:].tolist()
    (2, [1.0, 3.0])
    """

    alpha_bar: Float[Array, " t1"]
    noise: Float[Array, " t1"]  # 1 - alpha_bar, in digits of its own
    rise: Float[Array, " t"]  # of alpha_bar, likewise

    def __init__(self, alpha_bar: Any):
        given = np.asarray(alpha_bar, float)
        if given.ndim != 1 or len(given) < 2 or not (np.diff(given) > 0).all():
            raise ValueError(f"alpha_bar must rise from abar_0 to abar_T; got {brief(alpha_bar)}")
        if not 0 < given[0] < given[-1] < 1:
            raise ValueError(f"alpha_bar must lie within (0, 1); got {given[0]:g} to {given[-1]:g}")
        dtype = jax.dtypes.canonicalize_dtype(float)
        kept = [x.astype(dtype) for x in (given, 1 - given, np.diff(given))]
        if not all((x > 0).all() for x in kept):
            raise ValueError(f"alpha_bar must rise within (0, 1) in {kept[0].dtype} too")
        self.alpha_bar, self.noise, self.rise = map(jnp.asarray, kept)

    @property
    def n_blocks(self) -> int:
        """T."""
        return len(self.alpha_bar) - 1

    @property
    def snr(self) -> Float[Array, " t1"]:
        """Signal to noise, [T + 1]: abar / (1 - abar)."""
        return self.alpha_bar / self.noise

    @property
    def coefficients(self) -> Coefficients:
        """a, b and c of each block, [T]."""
        before, after = self.alpha_bar[:-1], self.alpha_bar[1:]
        alpha, left = before / after, self.noise[1:] / self.noise[:-1]
        fresh = self.rise / after / self.noise[:-1]  # (1 - alpha) / (1 - abar_(t-1))
        return Coefficients(jnp.sqrt(after) * fresh, jnp.sqrt(alpha) * left, self.noise[1:] * fresh)


def cosine_noise(n_blocks: int, clip: float = 1e-5) -> NoiseSchedule:
    """abar_t = clip + (1 - 2 clip) sin^2(pi t / 2 T) for T = `n_blocks`, [T + 1]; without unit.

    It runs from `clip` to 1 - `clip`: the paper says "cosine" and no more.
    Raises `ValueError` for n_blocks < 1 and a clip outside (0, 0.5).

    >>> nj.learning.cosine_noise(2, clip=0.01).alpha_bar
    Array([0.01, 0.5 , 0.99], dtype=float32)
    """
    angle = np.linspace(0, np.pi / 2, count("n_blocks")(n_blocks) + 1)
    Converter("clip must lie within (0, 0.5)", "", 0.0, 0.5, closed=False)(clip)
    return NoiseSchedule(clip + (1 - 2 * clip) * np.sin(angle) ** 2)


class Block(Protocol):
    """What tells the label from the input and a noised label, and learns to alone."""

    @property
    def n_classes(self) -> int:
        """How many classes it tells apart."""
        ...

    @property
    def plastic(self) -> tuple[str, ...]:
        """Names of the weights that learn."""
        ...

    def init(self, key: Key[Array, ""], make_weights: MakeWeights) -> tuple[dict, Any]:
        """Fresh weights, dict[str, Weights], and whatever else changes, a pytree."""
        ...

    def believe(
        self, weights: dict, rest: Any, x: Float[Array, "b ..."], z: Float[Array, "b c"], *,
        key: Key[Array, ""] | None,
    ) -> Float[Array, "b c"]:  # fmt: skip
        """uhat [batch, n_classes]: the chance of each class."""
        ...

    def learn(
        self, weights: dict, rest: Any, x: Float[Array, "b ..."], z: Float[Array, "b c"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[dict, Any, Float[Array, "b c"]]:  # fmt: skip
        """Ascending changes by name, means over the batch; the rest afterwards; and uhat."""
        ...


@described
class MLPBlock(eqx.Module):
    """n_in -> `image` and n_classes -> `label` neurons, both -> `hidden` -> softmax.

    Rectified neurons with biases. Within the block the gradient is passed back, by hand, each
    array read both ways: that is backpropagation, over two layers.
    Raises `ValueError` for numbers of neurons that are no whole numbers >= 1.

    >>> block = nj.learning.MLPBlock(64, 10)
    >>> weights, _ = block.init(jax.random.key(0), nj.ideal())
    >>> {name: w.w.shape for name, w in weights.items()}
    {'image': (128, 65), 'label': (64, 11), 'hidden': (128, 193), 'out': (10, 129)}
    """

    n_in: int = eqx.field(static=True, converter=count("n_in"))
    n_classes: int = eqx.field(static=True, converter=count("n_classes", 2))
    image: int = eqx.field(static=True, default=128, converter=count("image"))
    label: int = eqx.field(static=True, default=64, converter=count("label"))
    hidden: int = eqx.field(static=True, default=128, converter=count("hidden"))

    @property
    def plastic(self) -> tuple[str, ...]:
        """All of them."""
        return ("image", "label", "hidden", "out")

    def init(
        self, key: Key[Array, ""], make_weights: MakeWeights = ideal()
    ) -> tuple[dict[str, Weights], None]:
        """Arrays [n_out, n_in + 1], first weights Gaussian with gain sqrt(2)."""
        sizes = {
            "image": (self.n_in, self.image), "label": (self.n_classes, self.label),
            "hidden": (self.image + self.label, self.hidden), "out": (self.hidden, self.n_classes),
        }  # fmt: skip
        made = lambda n, size: drawn(fold(key, n), size, make_weights, 2**0.5)["w1"]  # noqa: E731
        return {name: made(name, size) for name, size in sizes.items()}, None

    def believe(
        self, weights: dict, rest: None, x: Float[Array, "b ..."], z: Float[Array, "b c"], *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b c"]:  # fmt: skip
        """uhat [batch, n_classes]."""
        return self._up(weights, x, z, key)[0]

    def learn(
        self, weights: dict, rest: None, x: Float[Array, "b ..."], z: Float[Array, "b c"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[dict[str, Array], None, Float[Array, "b c"]]:  # fmt: skip
        """Changes of the four arrays."""
        p, inputs, currents = self._up(weights, x, z, fold(key, "up"))
        down = lambda n, e: backward(weights[n], e, fold(key, n))[:, :-1]  # noqa: E731
        wrong = p - jax.nn.one_hot(y, self.n_classes, dtype=p.dtype)
        delta = {"out": p * (wrong - (p * wrong).sum(1, keepdims=True))}
        delta["hidden"] = down("out", delta["out"]) * relu.slope(currents["hidden"])
        both = down("hidden", delta["hidden"])
        delta["image"] = both[:, : self.image] * relu.slope(currents["image"])
        delta["label"] = both[:, self.image :] * relu.slope(currents["label"])
        dw = {n: -weights[n].outer(d, inputs[n]) / len(p) for n, d in delta.items()}
        return dw, None, p

    def _up(self, weights: dict, x: Array, z: Array, key: Array | None):
        """uhat, and what each array reads and gives."""
        inputs, currents = {}, {}

        def layer(name: str, a: Array) -> Array:
            inputs[name] = with_one(a)
            currents[name] = forward(weights[name], inputs[name], fold(key, name))
            return relu.value(currents[name])

        x = flat(x, self.n_in)
        seen = layer("image", x), layer("label", z.astype(x.dtype))
        layer("out", layer("hidden", jnp.concatenate(seen, 1)))
        return jax.nn.softmax(currents["out"]), inputs, currents


@described
class SpikingBlock(eqx.Module):
    """Spiking neurons that learn by broadcast and three factors: nothing is passed back.

    `system` is one of `wta_broadcast`, whose input is a picture and behind it the noised label,
    times `label_gain`, as currents (nA) that are held: n_in + n_classes of them. Its populations
    compete by a softmax, which is uhat; its teacher is a `SoftWTA`.
    Raises `ValueError` for a system with no more inputs than classes; `TypeError` for another
    teacher.

    >>> layer = nj.Layer(32, nj.LIF(), rule=nj.ThreeFactor())
    >>> net = nj.structured(jax.random.key(0), 64 + 10, [layer], n_classes=10)
    >>> system = nj.wta_broadcast.system(jax.random.key(1), net)
    >>> nj.learning.SpikingBlock(system).n_in
    64
    """

    system: System = eqx.field(converter=lambda x: kind("system", x, System))
    label_gain: float | Array = eqx.field(default=1.0, converter=positive("label_gain", "nA"))

    def __check_init__(self):
        kind("teacher", self.system.teacher, SoftWTA)
        if self.n_in < 1:
            raise ValueError(
                f"the system must read a picture and {self.n_classes} numbers of a label behind it;"
                f" got {self.system.n_in} inputs"
            )

    @property
    def n_classes(self) -> int:
        """How many classes the feedback tells apart."""
        return self.system.n_classes

    @property
    def n_in(self) -> int:
        """How many numbers a picture has."""
        return self.system.n_in - self.n_classes

    @property
    def plastic(self) -> tuple[str, ...]:
        """Names of the plastic projections."""
        return tuple(self.system.network.plastic())

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> tuple[dict, dict]:
        """Weights of each projection, and the thresholds of the hidden layers."""
        return self.system.network.init_weights(key, make_weights), self.system.rest()

    def believe(
        self, weights: dict, rest: dict, x: Float[Array, "b ..."], z: Float[Array, "b c"], *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b c"]:  # fmt: skip
        """uhat [batch, n_classes]."""
        seen = wta_broadcast.predict(self.system, weights, rest, self._drive(x, z), key=key)
        return self._softmax(seen.scores)

    def learn(
        self, weights: dict, rest: dict, x: Float[Array, "b ..."], z: Float[Array, "b c"],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[dict[str, Array], dict, Float[Array, "b c"]]:  # fmt: skip
        """Changes of the plastic projections, and the thresholds afterwards."""
        drive = self._drive(x, z)
        dw, seen = wta_broadcast.deltas(self.system, weights, rest, drive, y, key=key)
        rest = wta_broadcast.excited(self.system, rest, seen.rates)
        return dw, rest, self._softmax(seen.scores)

    def _drive(self, x: Array, z: Array) -> Array:
        x = flat(x, self.n_in)
        z = jnp.asarray(self.label_gain, x.dtype) * z.astype(x.dtype)
        return jnp.concatenate([x, z], 1)

    def _softmax(self, scores: Array) -> Array:
        gain = kind("teacher", self.system.teacher, SoftWTA).gain
        return jax.nn.softmax(gain.astype(scores.dtype) * scores)


class NoPropState(NamedTuple):
    """Exactly what a checkpoint holds; block by block, stacked.

    Fields:
        weights: dict[str, Weights]; each [T, n_out, n_in], made block by block by `make_weights`
            under `vmap`, so that devices are stacked as numbers are
        rest: any; what else changes in a block: thresholds, if it spikes
        opt_state: any; that of the optax transformation, one a block
    """

    weights: dict[str, Weights]
    rest: Any
    opt_state: Any


class NoPropPath(NamedTuple):
    """What happened on the way from noise to a label.

    Fields:
        z: float [T + 1, batch, n_classes]; z_0 to z_T
        u: float [T, batch, n_classes]; what each block believed, uhat_1 to uhat_T
    """

    z: Float[Array, "t1 b c"]
    u: Float[Array, "t b c"]


def _one_or_all(x: Any) -> Array:
    """Field converter: the number of a block; -1 for all."""
    if isinstance(x, jax.Array):
        return x
    return jnp.asarray(-1 if x is None else count("only", 0)(x), jnp.int32)


@described
class NoProp(eqx.Module):
    """As many blocks as `schedule` has steps, each trained alone, all in one `vmap`; a `Learner`.

    `block` says what each of them is: an `MLPBlock`, or a `SpikingBlock` in which nothing is
    passed back. `tx` is an optax transformation; each block has its own state of it, so that a
    clip by norm is one of that block. `only` lets one block learn, from 0, and all others stay as
    they were: bit for bit what it learns beside them, as the program is the same. Scores are z_T.
    With one block it is an ordinary classifier: the control. All is without unit, but for the
    currents of spiking neurons.
    Raises `TypeError` for a class in place of its instance, `ValueError` for a block to train that
    is not there.

    >>> import optax
    >>> noise = nj.learning.cosine_noise(3)
    >>> learner = nj.learning.NoProp(nj.learning.MLPBlock(64, 10), optax.adamw(1e-3), noise)
    >>> state = learner.init(jax.random.key(0))
    >>> x, y = jnp.ones((2, 64)), jnp.array([0, 2])
    >>> state, info = learner.step(state, x, y, key=jax.random.key(1))
    >>> learner.predict(state, x, key=jax.random.key(2)).shape, state.weights["out"].w.shape
    ((2, 10), (3, 10, 129))

    Source: Li, Teh and Pascanu (2025), arXiv 2503.24322.
    """

    block: Block = eqx.field(converter=lambda x: instance("block", x, "init", "believe", "learn"))
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    schedule: NoiseSchedule = eqx.field(
        default_factory=lambda: cosine_noise(10),
        converter=lambda x: kind("schedule", x, NoiseSchedule),
    )
    only: int | Array | None = eqx.field(default=None, converter=_one_or_all)

    def __check_init__(self):
        only, n_blocks = jnp.asarray(self.only), self.schedule.n_blocks
        known = not isinstance(only, Tracer)
        if only.shape or known and not -1 <= int(only) < n_blocks:
            raise ValueError(f"only must be one of {n_blocks} blocks, from 0; got {only}")

    @property
    def n_classes(self) -> int:
        """How many classes it tells apart."""
        return self.block.n_classes

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> NoPropState:
        """Fresh blocks, each drawn from a key of its own."""

        def one(key):
            weights, rest = self.block.init(key, make_weights)
            opt_state = self.tx.init({n: weights[n].w for n in self.block.plastic})
            return NoPropState(weights, rest, opt_state)

        return jax.vmap(one)(jax.random.split(prng_key(key), self.schedule.n_blocks))

    def step(
        self, state: NoPropState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[NoPropState, Info]:  # fmt: skip
        """Learn from one batch; `accuracy` is that of the first block, whose z is all but noise."""
        y = classes("y", y, self.n_classes, len(x))
        learn = lambda state, t: self.step_block(state, t, x, y, key=key)  # noqa: E731
        only = jnp.asarray(self.only)
        blocks = jnp.arange(self.schedule.n_blocks, dtype=only.dtype)
        after, u = jax.vmap(learn)(state, blocks)
        # A mask that the compiler knows would make another program, which rounds differently.
        learns = jax.lax.optimization_barrier((only < 0) | (blocks == only))
        keep = lambda new, old: jnp.where(_over(learns, new), new, old)  # noqa: E731
        return jax.tree.map(keep, after, state), {"accuracy": accuracy(u[0], y)}

    def step_block(
        self, state: NoPropState, t: int | Int[Array, ""], x: Float[Array, "b ..."],
        y: Int[Array, " b"], *, key: Key[Array, ""],
    ) -> tuple[NoPropState, Float[Array, "b c"]]:  # fmt: skip
        """What `step` does to block `t`, 0 to T - 1, as on a core of its own.

        `state` is of that block alone, without the leading axis. Gives uhat [batch, n_classes]
        too. Raises `ValueError` for labels that are none of the classes, outside jit.
        """
        y, key = classes("y", y, self.n_classes, len(x)), jax.random.fold_in(prng_key(key), t)
        z = self.noised(y, t, key=fold(key, "noise"))
        dw, rest, u = self.block.learn(state.weights, state.rest, x, z, y, key=fold(key, "learn"))
        weights, opt_state = programmed(self.tx, state.weights, state.opt_state, dw, key)
        return NoPropState(weights, rest, opt_state), u

    def noised(
        self, y: Int[Array, " b"], t: int | Int[Array, ""], *, key: Key[Array, ""]
    ) -> Float[Array, "b c"]:
        """z_t of labels `y` [batch]: [batch, n_classes], drawn from `key`."""
        signal, noise = jnp.sqrt(self.schedule.alpha_bar[t]), jnp.sqrt(self.schedule.noise[t])
        u = jax.nn.one_hot(y, self.n_classes, dtype=signal.dtype)
        return signal * u + noise * jax.random.normal(key, u.shape, u.dtype)

    def predict(
        self, state: NoPropState, x: Float[Array, "b ..."], *, key: Key[Array, ""] | None = None
    ) -> Float[Array, "b c"]:
        """Scores [batch, n_classes]: z_T along the mean, z_0 = 0; `key` is that of the reads.

        As published, with noise on the way, scores are `path(...).z[-1]`, and worse.
        """
        return self.path(state, x, key=key, noise=False).z[-1]

    def path(
        self, state: NoPropState, x: Float[Array, "b ..."], *,
        key: Key[Array, ""] | None = None, noise: bool = True,
    ) -> NoPropPath:  # fmt: skip
        """From noise through all blocks, with what each of them believed on the way.

        Without `noise`, or without a `key` to draw it from, z goes along its mean from 0.
        """
        shape, dtype = (len(x), self.n_classes), self.schedule.noise.dtype
        noise = flag("noise")(noise)

        def drawn(t):
            if key is None or not noise:
                return jnp.zeros(shape, dtype)
            at = jax.random.fold_in(fold(prng_key(key), "path"), t)
            return jax.random.normal(at, shape, dtype)

        def through(z, block):
            t, state, move = block
            read = None if key is None else jax.random.fold_in(fold(key, "read"), t)
            u = self.block.believe(state.weights, state.rest, x, z, key=read).astype(dtype)
            z = move.a * u + move.b * z + jnp.sqrt(move.c) * drawn(t + 1)
            return z, (z, u)

        blocks = jnp.arange(self.schedule.n_blocks), state, self.schedule.coefficients
        _, (z, u) = jax.lax.scan(through, drawn(0), blocks)
        return NoPropPath(jnp.concatenate([drawn(0)[None], z]), u)


def _over(each: Array, x: Array) -> Array:
    """`each` [T] with axes behind it, to stand beside `x` [T, ...]."""
    return each.reshape(-1, *[1] * (x.ndim - 1))


def __dir__() -> list[str]:
    return __all__
