"""Networks: layers and projections as structure, one `lax.scan` over time a group of layers.

Within a step each layer sums what arrives, then integrates, fires and resets. A projection
with `delay` 0 carries this step's spikes (feed-forward, in order of depth), with delay d
those of d steps ago. Layers that no projection feeds from inside read external inputs.
"""

from collections.abc import Callable, Iterable
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple, overload
from zlib import crc32

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from neurojax._once import batch_last, once
from neurojax.layouts import by_matrix
from neurojax.plasticity import Rule
from neurojax.sparse import FanOut
from neurojax.surrogate import heaviside
from neurojax.synapses import Delay
from neurojax.teaching import k_winners
from neurojax.weights import Connectivity, MakeWeights, Weights, ideal, normal

# Up to so many steps, groups of layers run one after another, the spikes of one being a moving
# input of the next, read in one product. In longer runs these spikes would fill the memory.
_LAYERWISE = 512
# Fewer pairs of neurons than these are not worth a pass of their own over all steps: going
# forward alone, and where a gradient is wanted, to which the pass gives one product for T.
_WORTH_A_PASS, _WORTH_A_PASS_BACK = 2**16, 2**12


class Layer(eqx.Module):
    """A population: how many neurons of which model, how currents are shaped, how it learns.

    `synapse` filters the summed arrivals (None: they are the current of this step).
    `rule` serves all plastic projections onto this layer. With `winners` k only the k
    neurons of highest potential may fire in a step (k-WTA).
    """

    n: int = eqx.field(static=True)
    neuron: Any
    synapse: Any = None
    rule: Rule | None = None
    winners: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.winners is not None and not 1 <= self.winners <= self.n:
            raise ValueError(f"winners must be in [1, {self.n}], the layer; got {self.winners}")

    def step(self, neuron: Any, synapse: Any, arrivals: Float[Array, " n"], *, dt: float):
        """States of neuron and synapse after `dt` ms, and the output."""
        current = arrivals
        if self.synapse is not None:
            tau_mem = self.neuron.tau_mem
            synapse, current = self.synapse.step(synapse, arrivals, dt=dt, tau_mem=tau_mem)
        neuron, z = self.neuron.step(neuron, current, dt=dt)
        if self.winners is not None:
            z = z * k_winners(neuron.v, self.winners)
            neuron = neuron._replace(z=z)
        return neuron, synapse, z


class Projection(eqx.Module):
    """Synapses from `pre` (a layer or an external input) onto layer `post`.

    `delay` in steps, 0 from external inputs. Initial weights are `w` where given, else
    Gaussian with standard deviation `gain` / sqrt(fan-in).
    """

    pre: str = eqx.field(static=True)
    post: str = eqx.field(static=True)
    connectivity: Connectivity
    delay: int = eqx.field(static=True, default=0)
    plastic: bool = eqx.field(static=True, default=True)
    gain: float = eqx.field(static=True, default=1.0)
    w: Float[Array, "..."] | None = None

    def __check_init__(self):
        shape = self.connectivity.shape
        if self.w is not None and self.w.shape[-len(shape) :] != shape:
            raise ValueError(f"w must have shape {shape}; got {self.w.shape}")

    def initial(self, key: Key[Array, ""], dtype: DTypeLike = float) -> Float[Array, "..."]:
        """Weights to start from."""
        if self.w is not None:
            return self.w.astype(dtype)
        return normal(key, self.connectivity, self.gain, dtype)


class Record(NamedTuple):
    """What one layer did in one step."""

    z: Float[Array, " n"]  # output: spikes, or the potential of a leaky integrator
    neuron: Any  # the neuron's whole state after the step


class State(NamedTuple):
    """All that changes from step to step."""

    neurons: dict[str, Any]
    synapses: dict[str, Any]
    sent: dict[str, Array]  # the last output of layers that a delayed projection starts from
    delays: dict[str, Any]  # what is under way in projections of two steps and more


class Network(eqx.Module):
    """Structure alone; weights and state are passed in.

    Raises `ValueError` for a projection that ends nowhere, does not fit its layers or delays
    an external input, and for a loop without delay.
    """

    layers: dict[str, Layer]
    projections: dict[str, Projection]

    def __check_init__(self):
        for name, p in self.projections.items():
            if p.post not in self.layers:
                raise ValueError(f"projection {name!r} ends at {p.post!r}, which is no layer")
            if p.delay < 0:
                raise ValueError(f"delay of projection {name!r} must be >= 0; got {p.delay}")
            if p.delay and p.pre not in self.layers:
                raise ValueError(
                    f"delay of projection {name!r} must be 0, as input {p.pre!r} is no layer;"
                    f" got {p.delay}"
                )
            for end, n in (("pre", p.connectivity.n_pre), ("post", p.connectivity.n_post)):
                layer = self.layers.get(getattr(p, end))
                if layer is not None and layer.n != n:
                    raise ValueError(
                        f"projection {name!r} has {n} {end} neurons; layer"
                        f" {getattr(p, end)!r} has {layer.n}"
                    )
        self.order()

    def order(self) -> tuple[str, ...]:
        """Layers such that each comes after those that it hears without delay."""
        graph = {name: set() for name in sorted(self.layers)}
        for p in self.projections.values():
            if p.delay == 0 and p.pre in self.layers:
                graph[p.post].add(p.pre)
        try:
            ordered = {name: sorted(before) for name, before in graph.items()}
            return tuple(TopologicalSorter(ordered).static_order())
        except CycleError as error:
            raise ValueError(f"projections without delay form a loop: {error.args[1]}") from None

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Layers that run step by step together; each group after those that it hears.

        Those on a loop must, and those that a delayed projection links; with them go those
        that only small projections link to the group before.
        """
        inner = [self.projections[n] for n in self.internal()]
        large = {(p.pre, p.post) for p in inner if _pairs(p) >= _worth(self.layers[p.pre])}
        out: list[tuple[str, ...]] = []
        for loop in _loops(self.layers, inner):
            if out and not large & {(pre, post) for pre in out[-1] for post in loop}:
                loop = out.pop() + loop
            out.append(loop)
        return tuple(out) or ((),)

    def onto(self, layers: tuple[str, ...]) -> "Network":
        """These layers alone, and all that ends at them."""
        kept = {n: p for n, p in self.projections.items() if p.post in layers}
        return Network({n: self.layers[n] for n in layers}, kept)

    def external(self) -> tuple[str, ...]:
        """Names of projections that start outside the network."""
        return tuple(n for n in sorted(self.projections) if self._pre(n) not in self.layers)

    def internal(self) -> tuple[str, ...]:
        """Names of projections between layers."""
        return tuple(n for n in sorted(self.projections) if self._pre(n) in self.layers)

    def plastic(self) -> tuple[str, ...]:
        """Names of projections that learn."""
        return tuple(n for n in sorted(self.projections) if self.projections[n].plastic)

    def without(self, *names: str) -> "Network":
        """The same network less some projections."""
        kept = {n: p for n, p in self.projections.items() if n not in names}
        return Network(self.layers, kept)

    def _pre(self, name: str) -> str:
        return self.projections[name].pre

    def init_weights(
        self,
        key: Key[Array, ""],
        make_weights: MakeWeights = ideal(),
        dtype: DTypeLike = float,
    ) -> dict[str, Weights]:
        """Each projection's initial weights, held by whatever `make_weights` makes of them."""
        return {
            name: make_weights(
                p.initial(fold(key, name), dtype), p.connectivity, fold(key, f"{name} made")
            )
            for name, p in self.projections.items()
        }

    def init(self, dtype: DTypeLike = float) -> State:
        """Everything at rest, nothing under way."""
        late = {n: p for n, p in self.projections.items() if p.delay}
        far = {n: p for n, p in late.items() if p.delay > 1}
        return State(
            {n: x.neuron.init((x.n,), dtype) for n, x in self.layers.items()},
            {
                n: None if x.synapse is None else x.synapse.init((x.n,), dtype)
                for n, x in self.layers.items()
            },
            {p.pre: jnp.zeros(self.layers[p.pre].n, dtype) for p in late.values()},
            {n: Delay(p.delay - 1).init((self.layers[p.pre].n,), dtype) for n, p in far.items()},
        )

    def drive(
        self, weights: dict[str, Weights], inputs: dict[str, Array], *, key: Array | None = None
    ) -> dict[str, Array]:
        """Current from outside into each layer, in one product: [n], or [T, n] over time.

        An input [n_in] is held for the whole presentation, and read once; [T, n_in] changes
        with time, and step t reads it with the noise of fold_in(key, t).
        """
        total: dict[str, Array] = {}
        for name in self.external():
            p, x = self.projections[name], _input(self.projections[name], name, inputs)
            current = _read(weights[name], x, key, name)
            total[p.post] = _add(total[p.post], current) if p.post in total else current
        return total

    def step(
        self,
        weights: dict[str, Weights],
        state: State,
        drive: dict[str, Float[Array, " n"]],
        *,
        dt: float,
        key: Array | None = None,
    ) -> tuple[State, dict[str, Record]]:
        """All layers after `dt` ms under the external currents `drive`."""
        arriving, delays = arrivals(self, state)
        neurons, synapses, sent, records = {}, {}, {}, {}
        for name in self.order():
            layer = self.layers[name]
            current = drive[name] if name in drive else _no_current(layer, state.neurons[name])
            for p in (n for n in self.internal() if self.projections[n].post == name):
                s = arriving[p] if p in arriving else sent[self._pre(p)]
                arrived = weights[p].apply(s, key=fold(key, p))
                ready = batch_last if by_matrix(self.projections[p].connectivity) else once
                current = current + ready(arrived)
            neurons[name], synapses[name], sent[name] = layer.step(
                state.neurons[name], state.synapses[name], current, dt=dt
            )
            records[name] = Record(sent[name], neurons[name])
        kept = {n: sent[n] for n in state.sent}
        return State(neurons, synapses, kept, delays), records


def simulate(
    net: Network,
    weights: dict[str, Weights],
    state: State,
    inputs: dict[str, Array],
    *,
    n_steps: int,
    dt: float,
    probe: Callable[[dict[str, Record]], Any],
    key: Array | None = None,
) -> tuple[State, Any]:
    """Run one sample for `n_steps`; what `probe` returns of each step is stacked over time.

    `inputs` maps each external input to [n_in], held, or [T, n_in]. Under `jit` nothing but the
    probe's answer is kept, and the spikes between layers of up to 512 steps. Batch is `vmap`.
    Spikes that the probe gives as bools (z > 0) take a quarter of the memory.
    Raises `ValueError` for an input that is missing or of the wrong shape.
    """
    for name, x in inputs.items():
        if x.ndim == 2 and x.shape[0] != n_steps:
            raise ValueError(f"input {name!r} has {x.shape[0]} steps; n_steps is {n_steps}")
    groups = net.groups() if n_steps <= _LAYERWISE else (tuple(net.layers),)
    run = partial(_over_time, weights=weights, n_steps=n_steps, dt=dt, key=key)
    ends, records, sent = state, {}, {}
    for layers in groups[:-1]:
        ended, own = run(net.onto(layers), state=state, inputs=inputs | sent, probe=lambda r: r)
        ends, records = _joined(ends, ended), records | own
        sent |= {n: r.z for n, r in own.items()}
    ended, seen = run(
        net.onto(groups[-1]), state=state, inputs=inputs | sent, probe=probe, records=records
    )
    return _joined(ends, ended), seen


def _over_time(net: Network, weights, state, inputs, n_steps, dt, key, probe, records=None):
    """One scan over `net`; `probe` sees its records beside those of layers that ran before."""
    drive = net.drive(weights, inputs, key=key)
    held = {n: x for n, x in drive.items() if x.ndim == 1}
    moving = {n: x for n, x in drive.items() if x.ndim == 2}

    def step(state, now):
        t, moving, before = now
        key_t = None if key is None else jax.random.fold_in(key, t)
        state, own = net.step(weights, state, held | moving, dt=dt, key=key_t)
        return state, probe(before | own)

    return jax.lax.scan(step, _of(net, state), (jnp.arange(n_steps), moving, records or {}))


def _joined(old: State, new: State) -> State:
    return State._make(a | b for a, b in zip(old, new, strict=True))


def _of(net: Network, state: State) -> State:
    """What of `state` belongs to the layers and projections of `net`."""
    layers = [{n: x for n, x in part.items() if n in net.layers} for part in state[:3]]
    delays = {n: x for n, x in state.delays.items() if n in net.projections}
    return State._make((*layers, delays))


@overload
def fold(key: Array, name: str) -> Array: ...
@overload
def fold(key: None, name: str) -> None: ...
def fold(key: Array | None, name: str) -> Array | None:
    """A key of its own for each name: adding a component changes no other's draws."""
    return None if key is None else jax.random.fold_in(key, crc32(name.encode()))


def arrivals(net: Network, state: State) -> tuple[dict[str, Array], dict[str, Any]]:
    """What delayed projections deliver in the coming step, and what stays under way."""
    arriving, delays = {}, {}
    for name in net.internal():
        p = net.projections[name]
        if p.delay == 1:
            arriving[name] = state.sent[p.pre]
        if p.delay > 1:
            line = Delay(p.delay - 1)
            arriving[name] = line.read(state.delays[name])
            delays[name] = line.write(state.delays[name], state.sent[p.pre])
    return arriving, delays


def _no_current(layer: Layer, neuron: Any) -> Array:
    """Zeros as precise as the first float of the neuron's state."""
    floats = [x.dtype for x in jax.tree.leaves(neuron) if eqx.is_inexact_array(x)]
    return jnp.zeros(layer.n, floats[0] if floats else float)


def _pairs(p: Projection) -> int:
    """Pairs of neurons in one product; none where a product visits spikes one by one."""
    if isinstance(p.connectivity, FanOut):
        return 0
    return p.connectivity.n_pre * p.connectivity.n_post


def _worth(layer: Layer) -> int:
    """Pairs that make a pass of its own worth while for what `layer` sends."""
    spike = getattr(layer.neuron, "spike", heaviside)
    return _WORTH_A_PASS if spike == heaviside else _WORTH_A_PASS_BACK


def _loops(layers: Iterable[str], links: list[Projection]) -> Iterable[tuple[str, ...]]:
    """Layers that hear one another, a delay making a link go both ways, in order of depth."""
    hears = {n: {n} | {p.pre for p in links if p.post == n} for n in sorted(layers)}
    for p in links:
        if p.delay:
            hears[p.pre].add(p.post)
    for via in hears:  # Warshall: what is heard at second hand, and so on
        for heard in hears.values():
            if via in heard:
                heard |= hears[via]
    loop = {n: tuple(sorted(m for m in heard if n in hears[m])) for n, heard in hears.items()}
    before = {loop[n]: sorted({loop[m] for m in hears[n]} - {loop[n]}) for n in hears}
    return TopologicalSorter(before).static_order()  # of sorted parts: the same in every process


def _input(p: Projection, name: str, inputs: dict[str, Array]) -> Array:
    if p.pre not in inputs:
        raise ValueError(f"projection {name!r} needs input {p.pre!r}; got {sorted(inputs)}")
    x = inputs[p.pre]
    if x.ndim not in (1, 2) or x.shape[-1] != p.connectivity.n_pre:
        n = p.connectivity.n_pre
        raise ValueError(f"input {p.pre!r} must have shape [{n}] or [T, {n}]; got {x.shape}")
    return x


def _read(weights: Weights, x: Array, key: Array | None, name: str) -> Array:
    """Current [n] of a held input [n_in], or [T, n] of one that changes."""
    if x.ndim == 1:
        return weights.apply(x, key=fold(key, name))
    if key is None:
        return jax.vmap(weights.apply)(x)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(x.shape[0]))
    return jax.vmap(lambda x, key: weights.apply(x, key=fold(key, name)))(x, keys)


def _add(a: Array, b: Array) -> Array:
    if a.ndim != b.ndim:
        a, b = jnp.atleast_2d(a), jnp.atleast_2d(b)
    return a + b
