"""Running a network: one `lax.scan` over time a group of layers, long runs in blocks of steps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from neurojax import _given
from neurojax._check import MOST, brief, count, flag, prng_key, real, step_size, working
from neurojax._compile import compiling
from neurojax._drive import currents, held, read
from neurojax._functions import Known, UnknownError, known
from neurojax._memory import affordable
from neurojax._transmission import arriving, gathered, stride
from neurojax.network import Network, State
from neurojax.recording import outputs
from neurojax.weights import changes

__all__ = ["simulate"]

# Steps whose currents are multiplied ahead in one product. Within them groups of layers run one
# after another, the spikes of one being a moving input of the next; more would fill the memory.
_MANY = 10**6  # steps kept, from which on it is worth asking how large they are
_BLOCK = 512
# Steps from which on two make a turn of the loop, which spares copies of what goes from one turn
# to the next, a seventh of a step in all. What spikes under way or weights lie in is longer, and
# would be copied for it.
_LONG = 1000


def __dir__() -> list[str]:
    return __all__


def simulate(
    net: Any, weights: Any, state: Any, inputs: Any, *, n_steps: Any, dt: Any,
    probe: Any = outputs, key: Any = None, start: Any = 0, every: Any = 1,
    learn: bool | None = None, signals: Any = None, donate: bool = False,
) -> Any:  # fmt: skip
    """Run one sample for `n_steps` of `dt` ms; what `probe` returns of a step is stacked over time.

    `net` is a `Network`, `weights` those of its `init_weights`, `state` that of its `init`.
    `inputs` maps each external input to [n_in], held, or [T, n_in] of floats, whole numbers or
    bools. `probe` maps {layer: Record} to arrays, by default each layer's output [n]; `every=k`
    keeps steps k, 2k, ... alone. The answer is the last state, and [T / k, ...] of each array.
    Chance, of noisy weights and sources, is drawn from `key`, in step t from fold_in(key, t),
    where t counts from `start`: a run that goes on with the state, the key and `start` = steps
    run so far is the run in one, bit for bit. Inputs and signals over time are those of this call.
    A network with rules must be told whether to learn. With learn=True the answer is (weights,
    state, seen): each plastic projection whose rule can run with the network (`STDP`) changes in
    every step, after its layer fired; the state keeps the traces. `signals` maps layers to what
    their rules hear of a third factor (`DopamineSTDP`): one number, [T], or [T, n]. What learns is
    held twice, as it was and as it is, unless `donate` gives the old numbers away: `weights` cannot
    be read any more then.

    Batch is `jax.vmap`; so are sweeps over `dt`, weights, states and parameters.

    Nothing but the probe's answer grows with time: inputs are multiplied 512 steps at a time.
    Spikes that the probe gives as bools (z > 0) take a quarter of the memory. Compiled once for
    one structure, whatever the values; a probe counts by its meaning, so a fresh `lambda` of
    the same code compiles nothing. Where it, or a class of one's own in the network, reads
    an object that could change unnoticed (neither number, array, function, module nor
    pytree), each call compiles anew: wrap the call in `eqx.filter_jit` then.

    Raises `ValueError` for `n_steps` or `every` that are no whole number >= 1, n_steps that
    `every` does not divide, a `start` that is no whole number >= 0, a `dt` that is not positive,
    an input that is missing, that no projection reads, of another shape or not finite, and for a
    state or weights of another network; `TypeError` for what is no key, no probe, no weights or no
    state.

    >>> net = nj.Network(
    ...     {"h": nj.Layer(2, nj.LIF(tau_mem=10.0))},
    ...     {"in": nj.Projection("x", "h", nj.Dense(1, 2), w=jnp.array([[1.2], [0.8]]))},
    ... )
    >>> weights = net.init_weights(jax.random.key(0))
    >>> _, z = nj.simulate(net, weights, net.init(), {"x": jnp.ones(1)}, n_steps=50, dt=1.0)
    >>> z["h"].sum(0).tolist()
    [2.0, 0.0]
    """
    n_steps, every = count("n_steps")(n_steps), count("every")(every)
    if n_steps % every:
        raise ValueError(f"n_steps must be a multiple of every, {every}; got {n_steps}")
    if not isinstance(net, Network):
        raise TypeError(f"net must be a Network; got {type(net).__name__}: pass nj.Network(...)")
    if not callable(probe):
        raise TypeError(f"probe must map records to arrays; got {brief(probe)}")
    _given.learn(net, learn)
    _given.weights(net, weights)
    _given.state(net, state)
    learn = bool(learn)
    donate = flag("donate")(donate)
    if learn and not state.rules:
        state = state._replace(rules=net.init_rules(_dtype(state)))
    inputs, dt = _given.inputs(net, inputs, n_steps), _checked(dt)
    key, start = None if key is None else prng_key(key), _begin(start, n_steps)
    if n_steps // every > _MANY:
        _refuse_too_many(net, weights, state, inputs, dt, n_steps // every, probe, key)
    signals = _given.signals(net, signals, n_steps, learn)
    values = net, weights, state, (inputs, signals), key, start, dt, n_steps, every, learn
    if compiling():
        return _run(*values, probe=probe)
    values = *values[:6], _as_input(dt, state), n_steps, every, learn
    try:
        function, arrays = known(probe, net, weights, state)
    except UnknownError:
        return _anew(values, probe)
    try:
        if donate and learn:
            return _in_place(values, function, arrays)
        return _compiled(values, function, arrays)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        if not arrays:
            raise
        return _anew(values, probe)  # it needs the value of an array, such as for a shape
    finally:
        function.forget()


def _refuse_too_many(net, weights, state, inputs, dt, n_kept: int, probe, key) -> None:
    """Refuse steps of which what the probe keeps would not fit."""
    first = {n: x if x.ndim == 1 else x[:1] for n, x in inputs.items()}
    one = lambda: _run(net, weights, state, first, key, 0, dt, 1, 1, False, probe=probe)[1]  # noqa: E731
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(one)))
    cure = "pass every=, or a probe that keeps less"
    affordable(f"what the probe keeps of {n_kept} steps", n_kept * size, cure)


def _checked(dt: Any) -> Any:
    dt = step_size(dt)
    if shape := np.shape(dt):
        raise ValueError(f"dt must be one number, in ms; got shape {shape}: jax.vmap over dt")
    return dt


def _begin(start: Any, n_steps: int) -> Array:
    """The number of the first step, as an array, so that no other one compiles anew."""
    if isinstance(start, Tracer):
        if start.shape or not jnp.issubdtype(start.dtype, jnp.integer):
            raise ValueError(f"start must be one whole number; got {start.aval.str_short()}")
        return eqx.error_if(start.astype(int), start < 0, "start must be a whole number >= 0")
    start = count("start", 0)(start)
    if start > MOST - n_steps:
        raise ValueError(f"start must be <= {MOST - n_steps} before {n_steps} steps; got {start}")
    return jnp.asarray(start)


def _as_input(dt: Any, state: State) -> Array:
    """`dt` as an array that widens nothing."""
    if not isinstance(dt, jax.Array):
        return jnp.asarray(float(dt))  # of a weak type, as the number itself
    return dt.astype(working(_dtype(state)))


def _dtype(state: State) -> Any:
    """That of the first float in the state."""
    floats = [x.dtype for x in jax.tree.leaves(state) if eqx.is_inexact_array(x)]
    return floats[0] if floats else float


@eqx.filter_jit
def _compiled(values, probe: Known, arrays: list[Array]):
    return _run(*values, probe=probe.remake(arrays))


def _in_place(values, probe: Known, arrays: list[Array]):
    """The same, where numbers that learn are changed where they lie."""
    net, weights, *more = values
    learning = {n: weights[n] for n in net.learning()}
    changing, rest = eqx.partition(learning, {n: changes(x) for n, x in learning.items()})
    changed, *seen = _given_away((net, weights | rest, more, probe, arrays), changing)
    return (_with(weights, changed), *seen)


@eqx.filter_jit(donate="all-except-first")
def _given_away(fixed, changing):
    net, weights, more, probe, arrays = fixed
    given = net, _with(weights, changing), *more
    weights, *seen = _run(*given, probe=probe.remake(arrays))
    return (_changing({n: weights[n] for n in changing}), *seen)


def _anew(values, probe: Callable):
    """Compiled for this call alone, and forgotten."""
    arrays, rest = eqx.partition(values, eqx.is_array)
    return jax.jit(lambda arrays: _run(*eqx.combine(arrays, rest), probe=probe))(arrays)


def _run(
    net: Network, weights, state, given, key, begin, dt, n_steps: int, every: int, learn, probe
):  # fmt: skip
    _given.made_by(net, state)
    net, groups = _in_reach(net).with_totals(state), net.groups()
    inputs, signals = given
    ahead = len(groups) > 1 or any(x.ndim == 2 for x in inputs.values())
    block = partial(_block, net, groups, inputs, signals, key, begin, dt, probe, learn, weights)
    together = stride(net)  # what is gathered at once on several devices
    longest = _BLOCK if ahead else n_steps
    over = partial(_in_blocks, block, min(longest, together) if together > 1 else longest)
    # What learns is carried from step to step, the rest is not.
    changing = _changing({n: weights[n] for n in net.learning()} if learn else {})
    start = changing, state
    if every == 1:
        end, seen = over(start, 0, n_steps, last=False)
    else:
        starts = every * jnp.arange(n_steps // every)
        end, seen = jax.lax.scan(lambda s, at: over(s, at, every, last=True), start, starts)
    return (_with(weights, end[0]), end[1], seen) if learn else (end[1], seen)


def _in_reach(net: Network) -> Network:
    """The network, or an error at run time where a traced delay is out of its range."""
    for name, p in net.projections.items():
        if p.delays is not None and isinstance(p.delays.steps, Tracer):
            d, longest = p.delays.steps, p.delays.longest
            told = f"delays must be in [1, {longest}] steps, those of projection {name!r} too"
            checked = eqx.error_if(d, ((d < 1) | (d > longest)).any(), told)
            net = eqx.tree_at(lambda net, name=name: _steps_of(net, name), net, checked)
    return net


def _steps_of(net: Network, name: str) -> Any:
    return getattr(net.projections[name].delays, "steps", None)


def _in_blocks(block: Callable, longest: int, state, start, n_steps: int, last: bool):
    """`n_steps` from `start` on, at most `longest` at a time: all that is seen, or the last."""
    if n_steps <= longest:
        return block(state, start, n_steps, last)
    size = _whole_part(n_steps, longest)
    starts = start + size * jnp.arange(n_steps // size)
    state, seen = _scan(lambda s, start: block(s, start, size, last), state, starts, last)
    seen = seen if last else jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), seen)
    rest = n_steps % size
    if not rest:
        return state, seen
    state, more = block(state, start + (n_steps - rest), rest, last)
    return state, more if last else jax.tree.map(lambda a, b: jnp.concatenate([a, b]), seen, more)


def _whole_part(n: int, longest: int) -> int:
    """A length that leaves no rest where one is near: a rest is a second program to compile."""
    return max(range(max(longest // 8, 1), longest + 1), key=lambda k: (n % k == 0, k))


def _block(
    net: Network,
    groups,
    inputs,
    signals,
    key,
    begin,
    dt,
    probe,
    learn,
    weights,
    carry,
    start,
    n_steps,
    last,
):
    """Group after group of layers over the same steps."""
    changing, state = carry
    inputs = {n: x if x.ndim == 1 else _steps(x, start, n_steps) for n, x in inputs.items()}
    signals = {n: x if x.ndim == 0 else _steps(x, start, n_steps) for n, x in signals.items()}
    run = partial(
        _over_time, weights=_with(weights, changing), n_steps=n_steps, dt=dt, key=key,
        start=begin + start, learn=learn, signals=signals,
    )  # fmt: skip
    ends, records, sent = carry, {}, {}
    for layers in groups[:-1]:
        own = net.onto(layers)
        ended, seen = run(own, state=state, inputs=inputs | sent, probe=lambda r: r)
        ends, records = _joined(ends, ended), records | seen
        sent |= {n: r.z for n, r in seen.items()}
    ended, seen = run(
        net.onto(groups[-1]), state=state, inputs=inputs | sent, probe=probe, records=records,
        last=last,
    )  # fmt: skip
    return _joined(ends, ended), seen


def _changing(weights: dict[str, Any]) -> dict[str, Any]:
    """What of the weights is carried from step to step: no list of who sends to whom."""
    return {n: eqx.filter(x, changes(x)) for n, x in weights.items()}


def _with(weights: dict[str, Any], changing: dict[str, Any]) -> dict[str, Any]:
    """The weights, and in them what has changed."""
    return weights | {n: eqx.combine(x, weights[n]) for n, x in changing.items()}


def _steps(x: Array, start, n_steps: int) -> Array:
    if len(x) == n_steps:
        return x
    return jax.lax.dynamic_slice_in_dim(x, start, n_steps)


def _over_time(
    net: Network, weights, state, inputs, signals, n_steps, dt, key, start, learn, probe,
    records=None, last=False,
):  # fmt: skip
    """One scan over `net`; `probe` sees its records beside those of layers that ran before."""
    stepwise = {*net.unsteady(), *(net.learning() if learn else ())} & {*net.external()}
    noisy = held(net, weights, inputs, key, besides=stepwise)
    drive = currents(net, weights, inputs, key, start, besides={*noisy, *stepwise})
    read_now = {net.projections[n].pre for n in stepwise}
    heard = {n: real(x) for n, x in inputs.items() if n in read_now}
    still, moving = ({n: x for n, x in drive.items() if x.ndim == d} for d in (1, 2))
    stays, varies = ({n: x for n, x in heard.items() if x.ndim == d} for d in (1, 2))
    held_signals, told = ({n: x for n, x in signals.items() if (x.ndim > 0) == m} for m in (0, 1))
    changing = _changing({n: weights[n] for n in net.learning()} if learn else {})

    def step(carry, now):
        changing, state = carry
        t, moving, varies, told, before, words = now
        key_t = None if key is None else jax.random.fold_in(key, t)
        drive = read(net, still | moving, noisy, key_t)
        given = {"dt": dt, "key": key_t, "inputs": stays | varies}
        given |= {"ahead": arriving(net, words, state)}
        if not learn:
            state, own = net.step(weights, state, drive, **given)
            return (changing, state), probe(before | own)
        given |= {"learn": True, "signals": held_signals | told}
        changed, state, own = net.step(_with(weights, changing), state, drive, **given)
        return (_changing({n: changed[n] for n in changing}), state), probe(before | own)

    steps, state = start + jnp.arange(n_steps), _of(net, state)
    a_turn = 2 if n_steps >= _LONG and not (state.delays or learn) else 1
    words = gathered(net, state, n_steps)
    return _scan(
        step, (changing, state), (steps, moving, varies, told, records or {}, words), last, a_turn
    )


def _scan(step: Callable, state, xs, last: bool, unroll: int = 1):
    """`lax.scan`, or with `last` what the last step returns in place of all."""
    if not last:
        return jax.lax.scan(step, state, xs, unroll=unroll)
    first = jax.tree.map(lambda x: x[0], xs)
    shapes = jax.eval_shape(lambda: step(state, first)[1])
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    alone = lambda carry, x: (step(carry[0], x), None)  # noqa: E731
    return jax.lax.scan(alone, (state, none), xs, unroll=unroll)[0]


def _joined(old: tuple[dict, State], new: tuple[dict, State]) -> tuple[dict, State]:
    parts = (a | b for a, b in zip(old[1], new[1], strict=True))
    return old[0] | new[0], State._make(parts)


def _of(net: Network, state: State) -> State:
    """What of `state` belongs to the layers and projections of `net`."""
    sent = {p.pre for p in net.projections.values() if p.late}
    layers, projections = net.layers, net.projections
    owners = layers, layers, sent, projections, layers, projections, projections
    parts = zip(state, owners, strict=True)
    return State._make({n: x for n, x in part.items() if n in of} for part, of in parts)
