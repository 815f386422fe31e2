"""What becomes of spikes between their sender and the port that they reach.

In each step, of each projection: spikes, release, delay, weights. A step costs what is sent,
and state is one a neuron: what is under way waits as spikes of the sender or, where each synapse
of an event list has a delay of its own, as current of the receiver.
"""

import inspect
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from neurojax import _given
from neurojax._draw import fold
from neurojax._once import batch_last, once
from neurojax.layers import Projection
from neurojax.synapses.delays import Delay, Late
from neurojax.weights import Ideal, Weights, applied
from neurojax.wiring.layouts import by_matrix
from neurojax.wiring.shards import Shards, heard, heard_as, packed, unpacked
from neurojax.wiring.sparse import listed


class Arrived(NamedTuple):
    """What one projection delivered in one step.

    Fields:
        current: float [n_post], nA or uS; what it brings to its port
        spikes: float [n_pre]; which senders' spikes arrive, 0 or 1, as rules see them
        release: any; state of its release after the step
        under_way: any; what has not arrived yet
    """

    current: Float[Array, " post"] | None
    spikes: Float[Array, " pre"]
    release: Any
    under_way: Any


def under_way(p: Projection, dtype: DTypeLike) -> Any:
    """Nothing, as a projection whose spikes take two steps or more keeps it."""
    c = p.connectivity
    if _by_arrival(p):
        return p.delays.init(c.n_post, dtype)  # pyright: ignore[reportOptionalMemberAccess]
    n = 2 * c.n_pre if _both(p) else c.n_pre
    return Delay(p.delay - 1).init((n,), dtype) if p.delays is None else p.delays.init(n, dtype)


def delivered(
    projections: dict[str, Projection], weights: dict[str, Weights], spikes: dict[str, Array],
    state: Any, dt: Any, key: Array | None, ahead: dict[str, Array],
) -> dict[str, Arrived]:  # fmt: skip
    """What of the `spikes` [n_pre] sent to each projection, and of those under way, arrives now.

    Those that read the same spikes are multiplied together (`applied`). What arrives now of a
    projection in `ahead` is known.
    """
    arrived, due, heard = dict[str, Arrived](), dict[str, Array](), _Heard()
    for name, p in projections.items():
        sent, release = _released(p, name, spikes[name], state, dt, key)
        if p.delays is not None and _one_a_synapse(p):
            read = _one_each if _by_arrival(p) else _gathered
            sent = heard(p, sent)
            current, late = read(p, name, weights[name], sent, state.delays.get(name))
            arrived[name] = Arrived(current, spikes[name], release, late)
        else:
            sent, seen, late = _awaited(p, sent, spikes[name], state.delays.get(name))
            due[name] = ahead[name] if name in ahead else heard(p, sent)
            seen = due[name][: p.connectivity.n_pre] if seen is sent else seen
            arrived[name] = Arrived(None, seen, release, late)
    for name, current in applied({n: weights[n] for n in due}, due, key=key).items():
        ready = batch_last if by_matrix(projections[name].connectivity) else once
        arrived[name] = arrived[name]._replace(current=ready(current))
    return arrived


class _Heard:
    """Spikes on all devices where they go to a divided wiring: for wirings that hear alike once."""

    def __init__(self):
        self.kept = dict[Any, tuple[Array, Array]]()

    def __call__(self, p: Projection, s: Array) -> Array:
        at = id(s), heard_as(p.connectivity)
        if at not in self.kept:
            self.kept[at] = s, heard(p.connectivity, s)
        return self.kept[at][1]


def stride(net: Any) -> int:
    """Steps in which nothing is sent that arrives in them, where event lists are divided; or 1."""
    late = [p.delay for p in _divided(net).values()]
    return max(1, min(late, default=1))


def _divided(net: Any) -> dict[str, Any]:
    return {
        n: p for n, p in net.projections.items()
        if isinstance(p.connectivity, Shards) and p.connectivity.spikes and p.pre in net.layers
    }  # fmt: skip


def gathered(net: Any, state: Any, n_steps: int) -> dict[str, Array]:
    """Spikes that arrive in the coming `n_steps`, as `packed`, where all of them have been sent."""
    found, by = dict[str, Array](), dict[Any, Array]()
    if 1 < n_steps <= stride(net):
        for name, p in _divided(net).items():
            at = p.pre, p.delay
            if at not in by:
                line = state.delays[name]
                sent = jnp.concatenate(
                    [jnp.roll(line.ring, -line.head, 0), state.sent[p.pre][None]]
                )
                by[at] = packed(p.connectivity.mesh, sent[:n_steps])
            found[name] = by[at]
    return found


def arriving(net: Any, words: dict[str, Array], state: Any) -> dict[str, Array]:
    """The spikes of one step, as a wiring is to have them, of what was `gathered`."""
    found, by = dict[str, Array](), dict[Any, Array]()
    for name, x in words.items():
        p, dtype = net.projections[name], state.sent[net.projections[name].pre].dtype
        mesh, n = p.connectivity.mesh, p.connectivity.parts.n_pre
        if (id(x), n) not in by:
            by[id(x), n] = unpacked(mesh, x, p.connectivity.n_pre // len(x), n, dtype)
        found[name] = by[id(x), n]
    return found


def _released(p: Projection, name: str, s: Array, state: Any, dt: Any, key: Array | None):
    """What the spikes `s` set free, and the state of the release."""
    if p.release is None:
        return s, None
    drawn = {"key": fold(fold(key, name), "release")} if _draws(p.release) else {}
    if drawn and key is None:
        raise ValueError(f"key must be given, as the release of projection {name!r} draws")
    answer = p.release.step(state.release[name], s, dt=dt, **drawn)
    of = f"the release of projection {name!r}"
    release, sent = _given.pair(of, p.release, answer, "sent")
    _given.same(of, state.release[name], release)
    return sent, release


def _awaited(p: Projection, sent: Array, s: Array, line: Any) -> tuple[Array, Array, Any]:
    """What arrives of what was sent, the spikes that it is of, and what stays under way."""
    if not _both(p):
        sent, late = _later(p, sent, line)
        return sent, sent, late
    both, late = _later(p, jnp.concatenate([sent, s.astype(sent.dtype)]), line)
    sent, seen = jnp.split(both, 2)
    return sent, seen, late


def due(p: Projection, name: str, state: Any) -> Array:
    """Spikes [n_pre] that a late projection without release is about to deliver."""
    return _later(p, state.sent[p.pre], state.delays.get(name))[0]


def _draws(release: Any) -> bool:
    return "key" in inspect.signature(release.step).parameters


def _both(p: Projection) -> bool:
    """Whether spikes wait beside what they set free: the rule sees them, the neuron hears it."""
    return p.release is not None and not _one_a_synapse(p)


def _by_arrival(p: Projection) -> bool:
    """Whether what is under way waits at the receiver: a delay a synapse, of an event list."""
    return _one_a_synapse(p) and listed(p.connectivity)


def _one_a_synapse(p: Projection) -> bool:
    return p.delays is not None and p.delays.steps.ndim > 0


def _later(p: Projection, sent: Array, line: Any) -> tuple[Array, Any]:
    """What was sent as long ago as the delay says, and what stays under way."""
    if p.delays is not None:
        late = p.delays.pushed(line, sent)
        return p.delays.read(late), late
    if p.delay > 1:
        ring = Delay(p.delay - 1)
        return ring.read(line), ring.write(line, sent)
    return sent, None


def _numbers(p: Projection, name: str, weights: Weights) -> Array:
    if not isinstance(weights, Ideal):
        raise TypeError(
            f"delays of projection {name!r} must be one number where weights are"
            f" {type(weights).__name__}, which are read whole; got one a synapse"
        )
    return weights.w


def _gathered(
    p: Projection, name: str, weights: Weights, sent: Array, late: Late
) -> tuple[Array, Late]:
    """Each synapse hears its sender as it was, its own delay ago: a product with ones."""
    late = p.delays.pushed(late, sent)  # pyright: ignore[reportOptionalMemberAccess]
    c, w = p.connectivity, _numbers(p, name, weights)
    pre = jnp.broadcast_to(c.at_pre(jnp.arange(c.n_pre)), w.shape)
    heard = p.delays.read_each(late, pre)  # pyright: ignore[reportOptionalMemberAccess]
    return c.apply(w * heard, jnp.ones(c.n_pre, w.dtype)), late


def _one_each(
    p: Projection, name: str, weights: Weights, sent: Array, late: Late
) -> tuple[Array, Late]:
    """Spikes leave their current where it is due."""
    w, wiring, delays = _numbers(p, name, weights), p.connectivity, p.delays
    assert delays is not None  # noqa: S101
    due, ring = wiring.scheduled(w, sent, delays.steps, late.ring, late.head)  # pyright: ignore[reportAttributeAccessIssue]
    return due, Late(ring, (late.head + 1) % ring.shape[0])
