"""Boltzmann machines of one-hot nodes that settle to a mean field, which can be made unique.

    p(x) ~ exp(x^T Phi x / 2 + b^T x),    q_i = softmax((Phi q + b)_i) at each node i
    monotone: Phi = blkdiag(A^T A) - A^T A,    |A_i| <= sqrt(1 - m) for the columns A_i of each node

Then I - Phi >= m, the free energy F(q) = sum q log q - q^T Phi q / 2 - b^T q is convex, and there
is one mean field. It is found by damping what each node is told, a <- (1 - alpha) a + alpha
(Phi softmax(a) + b), which is mirror descent on F. Two settlings under nudges of b by -+beta g,
g = dl/dq, give the derivative of a loss l without any going backwards:

    dl/dPhi = -(q+ q+^T - q- q-^T) / 4 beta,    dl/db = -(q+ - q-) / 2 beta,    dl/dA = -2 A dl/dPhi

Source: Feng, Winston and Kolter (2023), arXiv 2307.04990 (the parametrisation); Scellier and
Bengio (2017) (the nudges).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key

from neurojax._check import (
    Converter,
    between,
    classes,
    count,
    instance,
    nonnegative,
    one_number,
    positive,
    prng_key,
)
from neurojax._draw import fold
from neurojax._repr import described
from neurojax.learning.learner import Info, forward
from neurojax.learning.perceptron import flat
from neurojax.learning.relax import Relaxed, settled
from neurojax.weights import MakeWeights, Weights, ideal, normal
from neurojax.wiring.layouts import Dense

__all__ = ["Boltzmann", "BoltzmannState", "Coupling", "Monotone", "Nodes", "Restricted"]


def inside(name: str) -> Converter:
    """Field converter: the argument as an array, refused unless 0 < x < 1."""
    return Converter(f"{name} must lie in (0, 1)", "", 0.0, 1.0, closed=False)


def until_one(name: str) -> Converter:
    """Field converter: the argument as an array, refused unless 0 < x <= 1."""
    return Converter(f"{name} must lie in (0, 1]", "", math.ulp(0.0), 1.0)


class Nodes(NamedTuple):
    """Which nodes there are, and of how many states.

    Kinds lie one behind the other, and within a kind states: the first of all its nodes, then the
    second. So what is done to each node goes along neighbours in memory.

    Fields:
        visible: tuple (nodes, states); one node a pixel
        upper: tuple (nodes, states); half of the hidden nodes
        lower: tuple (nodes, states); the others
        label: tuple (1, n_classes)
    """

    visible: tuple[int, int]
    upper: tuple[int, int]
    lower: tuple[int, int]
    label: tuple[int, int]

    @property
    def n(self) -> int:
        """States of all nodes together."""
        return sum(nodes * states for nodes, states in self)

    def parts(self, x: Float[Array, "*lead n"]) -> list[Float[Array, "*lead _ _"]]:
        """By kind: [..., states, nodes] each."""
        ends = np.cumsum([nodes * states for nodes, states in self])
        split = jnp.split(x, ends[:-1], axis=-1)
        return [s.reshape(*s.shape[:-1], *kind[::-1]) for s, kind in zip(split, self, strict=True)]

    def joined(self, parts: list[Float[Array, "*lead _ _"]]) -> Float[Array, "*lead n"]:
        """The reverse of `parts`."""
        return jnp.concatenate([p.reshape(*p.shape[:-2], -1) for p in parts], -1)

    def softmax(self, a: Float[Array, "*lead n"]) -> Float[Array, "*lead n"]:
        """Of each node."""
        return self.joined([jax.nn.softmax(p, -2) for p in self.parts(a)])


_FLOOR = 0.1  # of a probability, below which the loss is linear
Field = Callable[[list[Array], Array | None], list[Array]]  # (q, key) -> Phi q, both by kind


class Coupling(Protocol):
    """What couples the nodes: one array, which is read forward and transposed."""

    def init(self, key: Key[Array, ""], nodes: Nodes) -> tuple[Array, Dense]:
        """First weights, and their layout."""
        ...

    def field(self, nodes: Nodes, w: Weights) -> Field:
        """What couples q to Phi q, each by kind; what all samples share is computed once."""
        ...

    def change(
        self, nodes: Nodes, w: Weights, plus: Float[Array, "b n"], minus: Float[Array, "b n"]
    ) -> Array:
        """(q+ q+^T - q- q-^T) / 2, summed over a batch, times dPhi / dw."""
        ...

    def kept(self, nodes: Nodes, w: Array) -> Array:
        """The weights nearest to `w` that are allowed."""
        ...


@described
class Monotone(eqx.Module):
    """Phi = blkdiag(A^T A) - A^T A of an array A [rank, n]: the mean field is unique.

    The columns of a node are scaled down to a norm of sqrt(1 - m) where what an array holds has
    a larger one, so I - Phi >= m whatever that is. The blocks of single nodes are computed from
    what the array holds; all else are its two reads. First weights are Gaussian, the norm of a
    node's columns about `gain`. `m` and `gain` have no unit and are one number each.
    Raises `ValueError` unless 0 < m < 1 and gain > 0.
    Source: Feng, Winston and Kolter (2023), arXiv 2307.04990.
    """

    rank: int = eqx.field(static=True, default=128, converter=count("rank"))
    m: Float[Array, ""] = eqx.field(default=0.05, converter=inside("m"))
    gain: Float[Array, ""] = eqx.field(default=0.7, converter=positive("gain", ""))

    def __check_init__(self):
        one_number(self, "m", "gain")

    def init(self, key: Key[Array, ""], nodes: Nodes) -> tuple[Array, Dense]:
        """A, [rank, n]."""
        wiring = Dense(nodes.n, self.rank)
        w = normal(key, wiring, self.gain) * (nodes.n / self.rank) ** 0.5
        return self.kept(nodes, w), wiring

    def field(self, nodes: Nodes, w: Weights) -> Field:
        """Phi q = blkdiag(A^T A) q - A^T (A q)."""
        scale = self._scale(nodes, w.w)
        own = [jnp.einsum("rki,rli->lki", a, a) for a in nodes.parts(w.w * scale[None])]

        def phi(q: list[Array], key: Array | None = None) -> list[Array]:
            there = w.apply(scale * nodes.joined(q), key=fold(key, "forward"))
            back = nodes.parts(scale * w.apply_t(there, key=fold(key, "back")))
            return [_by_node(o, p) - b for o, p, b in zip(own, q, back, strict=True)]

        return phi

    def change(
        self, nodes: Nodes, w: Weights, plus: Float[Array, "b n"], minus: Float[Array, "b n"]
    ) -> Array:
        """-(A q) q^T of both, less what nodes would do to themselves: Hebbian, of A's two ends."""
        scale = self._scale(nodes, w.w)
        q, signs = jnp.stack([plus, minus]), jnp.array([-1, 1], plus.dtype)
        there = jax.vmap(lambda q: forward(w, scale[None] * q))(q)
        all_pairs = w.outer(signs[:, None, None] * there, q)
        blocks = zip(nodes.parts(w.w * scale[None]), nodes.parts(q), strict=True)
        own = [jnp.einsum("rki,s,sbki,sbli->rli", a, signs, p, p) for a, p in blocks]
        return all_pairs - nodes.joined(own)

    def kept(self, nodes: Nodes, w: Array) -> Array:
        """Columns scaled down to the norm that they may have."""
        return w * self._scale(nodes, w)[None]

    def _scale(self, nodes: Nodes, w: Array) -> Array:
        """What makes the norm of each node's columns sqrt(1 - m) at most, [n]."""
        found = []
        for a in nodes.parts(w):
            norm = jnp.linalg.eigvalsh(jnp.einsum("rki,rli->ikl", a, a))[:, -1]
            most = (1 - self.m).astype(w.dtype)
            scale = jnp.sqrt(jnp.minimum(1, most / jnp.maximum(norm, most)))[None]
            found.append(jnp.broadcast_to(scale, a.shape[1:]))
        return nodes.joined(found)


def _by_node(blocks: Float[Array, "l k i"], p: Float[Array, "l i"]) -> Float[Array, "k i"]:
    """sum_l blocks_lki p_li, along nodes: a product of small matrices would go node by node."""
    add = lambda total, of: (total + of[0] * of[1][None], None)  # noqa: E731
    return jax.lax.scan(add, jnp.zeros_like(p), (blocks, p), unroll=16)[0]


@described
class Restricted(eqx.Module):
    """A deep restricted Boltzmann machine: pixels - lower hidden nodes - upper ones - label.

    No layer is coupled within itself, and every other layer lies on one side of one array,
    [lower hidden nodes and label, pixels and upper ones], so that it is read both ways as that
    of `Monotone`. Its mean field need not be unique, nor need it be found. First weights are
    Gaussian of standard deviation gain / sqrt(fan-in).
    Source: Salakhutdinov and Hinton (2009), AISTATS, 448.
    """

    gain: Float[Array, ""] = eqx.field(default=0.3, converter=positive("gain", ""))

    def init(self, key: Key[Array, ""], nodes: Nodes) -> tuple[Array, Dense]:
        """W [states of one side, states of the other]; no pixel meets the label."""
        cut, n_pixels = self._cut(nodes), math.prod(nodes.visible)
        meets = np.ones((nodes.n - cut, cut), bool)
        meets[-math.prod(nodes.label) :, :n_pixels] = False
        wiring = Dense(cut, nodes.n - cut, meets)
        return normal(key, wiring, self.gain), wiring

    def field(self, nodes: Nodes, w: Weights) -> Field:
        """Phi q = [W^T q_below, W q_above]."""
        cut = self._cut(nodes)

        def phi(q: list[Array], key: Array | None = None) -> list[Array]:
            one, other = jnp.split(nodes.joined(q), [cut])
            back = w.apply_t(other, key=fold(key, "back"))
            return nodes.parts(jnp.concatenate([back, w.apply(one, key=fold(key, "forward"))]))

        return phi

    def change(
        self, nodes: Nodes, w: Weights, plus: Float[Array, "b n"], minus: Float[Array, "b n"]
    ) -> Array:
        """Hebbian, of the two sides."""
        q, signs, cut = jnp.stack([plus, minus]), jnp.array([1, -1], plus.dtype), self._cut(nodes)
        return w.outer(signs[:, None, None] * q[..., cut:], q[..., :cut])

    def kept(self, nodes: Nodes, w: Array) -> Array:
        """All are allowed."""
        return w

    def _cut(self, nodes: Nodes) -> int:
        """Where the other side begins: behind pixels and upper hidden nodes."""
        return math.prod(nodes.visible) + math.prod(nodes.upper)


def _pixels(x: Array) -> Array:
    """`x`, refused where it is known to leave [0, 1]."""
    return x if isinstance(x, Tracer) else between("x", 0.0, 1.0)(x)


class BoltzmannState(NamedTuple):
    """Exactly what a checkpoint holds.

    Fields:
        weights: dict[str, Weights]; "coupling", and "bias" [n, 1]
        opt_state: any; that of the optax transformation
    """

    weights: dict[str, Weights]
    opt_state: Any


@described
class Boltzmann(eqx.Module):
    """Completes pictures and names them: a Boltzmann machine that settles; a `Learner`.

    A sample is n_in pixels in [0, 1], of any shape; each falls into one of `n_bins` bins, the
    states of its node. Beside the pixels there are `n_hidden` hidden nodes of `group` states
    each, and one node for the label. Where pixels are known their nodes are held, and all others
    settle in at most `max_steps` steps, damped by 1 - `alpha`, until no node is told anything
    that differs by more than `tol`. `Monotone` has one mean field, found for alpha up to about
    3 / (1 + |A|^2).

    `step` hides each pixel with probability `p_hidden`, and the label. The loss is the mean
    cross-entropy of the hidden pixels and `label_weight` times that of the label: at 1 as much as
    all of them, so that pixels serve the label at the cost of their own values. Either is -log q of
    the true state, which goes on straight below q = 0.1, so that no nudge is without bounds; both
    nudges have the size `beta`. What it tells: accuracy (of the label), `completion` (part of the
    hidden pixels whose likeliest bin is theirs), `residual` (without unit), `unsettled` (part of
    the samples beyond `tol`). `predict` sees all pixels. `tx` is an optax transformation, which
    gets the changes negated.
    Raises `ValueError` for numbers out of range; `TypeError` for a class in place of its instance.
    Source: Feng, Winston and Kolter (2023), arXiv 2307.04990.

    >>> import optax
    >>> net = nj.learning.Boltzmann(64, 10, optax.sgd(0.1), coupling=nj.learning.Monotone(16))
    >>> state = net.init(jax.random.key(0))
    >>> x, y = jnp.ones((2, 64)), jnp.array([0, 2])
    >>> state, info = net.step(state, x, y, key=jax.random.key(1))
    >>> net.predict(state, x).shape
    (2, 10)
    >>> pixels, scores = net.complete(state, x, jnp.arange(64) < 32)  # the upper half is known
    >>> pixels.shape
    (2, 64, 2)
    """

    n_in: int = eqx.field(static=True, converter=count("n_in"))
    n_classes: int = eqx.field(static=True, converter=count("n_classes", 2))
    tx: Any = eqx.field(static=True, converter=lambda x: instance("tx", x, "init", "update"))
    coupling: Coupling = eqx.field(
        default_factory=Monotone, converter=lambda x: instance("coupling", x, "field", "change")
    )
    n_bins: int = eqx.field(static=True, default=2, converter=count("n_bins", 2))
    n_hidden: int = eqx.field(static=True, default=20, converter=count("n_hidden", 2))
    group: int = eqx.field(static=True, default=4, converter=count("group", 2))
    p_hidden: Float[Array, ""] = eqx.field(default=0.6, converter=inside("p_hidden"))
    label_weight: Float[Array, ""] = eqx.field(
        default=1.0, converter=nonnegative("label_weight", "")
    )
    beta: Float[Array, ""] = eqx.field(default=0.5, converter=positive("beta", ""))
    alpha: Float[Array, ""] = eqx.field(default=0.25, converter=until_one("alpha"))
    tol: Float[Array, ""] = eqx.field(default=1e-4, converter=nonnegative("tol", ""))
    max_steps: int = eqx.field(static=True, default=50, converter=count("max_steps"))

    def __check_init__(self):
        one_number(self, "p_hidden", "label_weight", "beta", "alpha", "tol")

    @property
    def nodes(self) -> Nodes:
        """All that settle."""
        upper = self.n_hidden // 2
        hidden = (upper, self.group), (self.n_hidden - upper, self.group)
        return Nodes((self.n_in, self.n_bins), *hidden, (1, self.n_classes))

    def init(self, key: Key[Array, ""], make_weights: MakeWeights = ideal()) -> BoltzmannState:
        """Fresh weights and the optimiser's state; biases are 0."""
        key, n = prng_key(key), self.nodes.n
        w, wiring = self.coupling.init(fold(key, "coupling"), self.nodes)
        weights = {
            "coupling": make_weights(w, wiring, fold(key, "make coupling")),
            "bias": make_weights(jnp.zeros((n, 1), w.dtype), Dense(1, n), fold(key, "make bias")),
        }
        return BoltzmannState(weights, self.tx.init({n: w.w for n, w in weights.items()}))

    def step(
        self, state: BoltzmannState, x: Float[Array, "b ..."], y: Int[Array, " b"], *,
        key: Key[Array, ""],
    ) -> tuple[BoltzmannState, Info]:  # fmt: skip
        """Learn from one batch to complete it and to name it."""
        y = classes("y", y, self.n_classes, len(x))
        x = _pixels(flat(x, self.n_in))
        seen = jax.random.bernoulli(fold(key, "seen"), 1 - self.p_hidden, x.shape)
        target = self._target(x, y)
        keys = jax.random.split(fold(key, "settle"), len(x))
        told = self._told(state.weights)
        free, q, plus, minus = jax.vmap(lambda *s: self._nudged(told, *s))(target, seen, keys)
        weights, opt_state = self._programmed(state, plus, minus, key)
        right = self._right(q, target)
        info = {
            "accuracy": right[-1].mean(), "residual": free.residual.max(),
            "completion": (right[0] & ~seen).sum() / jnp.maximum((~seen).sum(), 1),
            "unsettled": (~(free.residual <= self.tol.astype(free.residual.dtype))).mean(),
        }  # fmt: skip
        return BoltzmannState(weights, opt_state), info

    def predict(
        self, state: BoltzmannState, x: Float[Array, "b ..."], *,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b c"]:  # fmt: skip
        """Scores [batch, n_classes] of pictures that are seen whole."""
        return self.complete(state, x, jnp.ones(self.n_in, bool), key=key)[1]

    def complete(
        self, state: BoltzmannState, x: Float[Array, "b ..."], seen: Bool[Array, "..."], *,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "b i k"], Float[Array, "b c"]]:  # fmt: skip
        """Probabilities of each pixel's bins [batch, n_in, n_bins], and scores of the classes.

        `seen` [n_in] or [batch, n_in] says which pixels are known; others may be of any value.
        Raises `ValueError` for known ones outside [0, 1], outside jit, and a `seen` of another
        shape or kind.
        """
        x, seen = flat(x, self.n_in), jnp.asarray(seen)
        if seen.dtype != bool or seen.shape not in (x.shape, x.shape[1:]):
            raise ValueError(
                f"seen must be True or False, [n_in] or [batch, n_in] = {list(x.shape)}; got"
                f" {seen.dtype} {list(seen.shape)}"
            )
        seen = jnp.broadcast_to(seen, x.shape)
        _pixels(jnp.where(seen, x, 0))
        told, target = self._told(state.weights), self._target(x, jnp.zeros(len(x), jnp.int32))
        keys = None if key is None else jax.random.split(key, len(x))
        one = lambda t, s, key: self.settled(told, t, s, key=key).state  # noqa: E731
        a = jax.vmap(one)(target, seen, keys)
        q = jnp.where(jax.vmap(self._held)(seen), target, self.nodes.softmax(a))
        return self.nodes.parts(q)[0].mT, self.nodes.parts(a)[-1][..., 0]

    def settled(
        self, told: Field, target: Float[Array, " n"], seen: Bool[Array, " i"], *,
        nudge: Float[Array, " n"] | None = None, start: Float[Array, " n"] | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Relaxed:  # fmt: skip
        """What each node [n] is told at rest, a = Phi q + b; nodes that are held are told 0."""
        nodes, zeros = self.nodes, jnp.zeros_like(target)
        known, more = nodes.parts(target)[0], nodes.parts(zeros if nudge is None else nudge)

        def step(a: list[Array], i: Array) -> list[Array]:
            pixels, *others = [jax.nn.softmax(x, -2) for x in a]
            q = [jnp.where(seen[None], known, pixels), *others]
            new = told(q, None if key is None else jax.random.fold_in(key, i))
            pixels, *others = [x + m for x, m in zip(new, more, strict=True)]
            return [jnp.where(seen[None], 0, pixels), *others]

        begin = nodes.parts(zeros if start is None else start)
        found = settled(step, begin, self.tol, self.max_steps, 1 - self.alpha)
        return found._replace(state=nodes.joined(found.state))

    def _nudged(self, told: Field, target: Array, seen: Array, key: Array):
        """One sample: at rest, its q, and q under both nudges."""
        free = self.settled(told, target, seen, key=fold(key, "free"))
        held = self._held(seen)
        mean = lambda a: jnp.where(held, target, self.nodes.softmax(a))  # noqa: E731
        q = mean(free.state)
        nudge = self.beta.astype(q.dtype) * self._slope(q, target, seen)
        both = jax.vmap(
            lambda n, key: self.settled(told, target, seen, nudge=n, start=free.state, key=key)
        )(jnp.stack([-nudge, nudge]), jax.random.split(fold(key, "nudged")))
        return free, q, *jax.vmap(mean)(both.state)

    def _slope(self, q: Array, target: Array, seen: Array) -> Array:
        """dl/dq of the hidden pixels, their mean, and of the label, weighted."""
        pixels, *hidden, label = self.nodes.parts(-target / jnp.maximum(q, _FLOOR))
        n = jnp.maximum((~seen).sum(), 1).astype(q.dtype)
        label = self.label_weight.astype(q.dtype) * label
        hidden = [0 * x for x in hidden]
        return self.nodes.joined([jnp.where(seen[None], 0, pixels / n), *hidden, label])

    def _programmed(self, state: BoltzmannState, plus: Array, minus: Array, key: Array):
        """Weights after the descent on the loss, within what the coupling allows."""
        w, size = state.weights, 2 * self.beta.astype(plus.dtype) * len(plus)
        dw = {
            "coupling": self.coupling.change(self.nodes, w["coupling"], plus, minus) / size,
            "bias": (plus - minus).sum(0)[:, None] / size,
        }
        plain = {n: x.w for n, x in w.items()}
        with jax.numpy_dtype_promotion("standard"):  # optax promotes, whatever the user has set
            moves, opt_state = self.tx.update(
                jax.tree.map(jnp.negative, dw), state.opt_state, plain
            )
        held = plain["coupling"]
        moves |= {"coupling": self.coupling.kept(self.nodes, held + moves["coupling"]) - held}
        return {n: x.program(moves[n], key=fold(key, n)) for n, x in w.items()}, opt_state

    def _told(self, weights: dict[str, Weights]) -> Field:
        """What nodes are told by others and by their biases."""
        phi = self.coupling.field(self.nodes, weights["coupling"])
        one = jnp.ones(1, weights["bias"].w.dtype)

        def told(q: list[Array], key: Array | None) -> list[Array]:
            bias = self.nodes.parts(weights["bias"].apply(one, key=fold(key, "bias")))
            return [x + b for x, b in zip(phi(q, key), bias, strict=True)]

        return told

    def _held(self, seen: Array) -> Array:
        """Which states [n] belong to pixels that are known."""
        pixels = jnp.tile(seen, self.n_bins)
        return jnp.concatenate([pixels, jnp.zeros(self.nodes.n - len(pixels), bool)])

    def _target(self, x: Array, y: Array) -> Array:
        """One-hot pixels and labels, [b, n]; hidden nodes have none."""
        bins = jnp.clip(x * self.n_bins, 0, self.n_bins - 1).astype(jnp.int32)
        pixels = jax.nn.one_hot(bins, self.n_bins, axis=-2, dtype=x.dtype)
        hidden = jnp.zeros((len(x), self.group, self.n_hidden), x.dtype)
        label = jax.nn.one_hot(y, self.n_classes, dtype=x.dtype)[..., None]
        return self.nodes.joined([pixels, hidden, label])

    def _right(self, q: Array, target: Array) -> list[Array]:
        """Where the likeliest state is that of the target, by kind of node."""
        both = zip(self.nodes.parts(q), self.nodes.parts(target), strict=True)
        return [a.argmax(-2) == b.argmax(-2) for a, b in both]


def __dir__() -> list[str]:
    return __all__
