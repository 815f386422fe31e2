"""Networks: layers and projections as structure; weights and state are passed in.

Within a step each layer sums what arrives, then integrates, fires and resets. A projection
with `delay` 0 carries this step's spikes (feed-forward, in order of depth), with delay d
those of d steps ago. Layers that no projection feeds from inside read external inputs.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array

from neurojax import _given
from neurojax._check import brief, flag, prng_key, real, step_size
from neurojax._draw import fold
from neurojax._drive import at, currents
from neurojax._repr import described
from neurojax._transmission import Arrived, delivered, under_way
from neurojax.layers import Layer, Projection, Record, potential, runs, takes
from neurojax.neurons.surrogate import heaviside
from neurojax.synapses.gap import GapJunctions
from neurojax.weights import MakeWeights, Weights, ideal, visited
from neurojax.wiring.procedural import Procedural
from neurojax.wiring.sparse import listed

__all__ = ["Layer", "Network", "Projection", "Record", "State", "fold"]

# Fewer pairs of neurons than these are not worth a pass of their own over all steps: going
# forward alone, and where a gradient is wanted, to which the pass gives one product for T.
_WORTH_A_PASS, _WORTH_A_PASS_BACK = 2**16, 2**12


def __dir__() -> list[str]:
    return __all__


class State(NamedTuple):
    """All that changes from step to step, by the names of layers and projections.

    `net.init()` makes the first one, `net.step` the next.

    >>> net = nj.Network({"h": nj.Layer(3, nj.LIF(v_rest=-0.5))}, {})
    >>> net.init().neurons["h"].v  # mV
    Array([-0.5, -0.5, -0.5], dtype=float32)

    Fields:
        neurons: dict[str, any]; state of each layer's neurons, such as LIFState: [n], mV
        synapses: dict[str, any]; state of each layer's synapse, such as ExponentialState: [n], nA
        sent: dict[str, array]; last output [n] of layers and inputs that delayed projections read
        delays: dict[str, any]; spikes under way in projections of two steps and more
        ports: dict[str, dict[str, any]]; state of each layer's receptors by port: [n], nA or uS
        release: dict[str, any]; state of each projection's release: [n_pre]
        rules: dict[str, any]; traces of the rules of plastic projections, [n_pre] and [n_post],
            where the network learns while it runs
    """

    neurons: dict[str, Any]
    synapses: dict[str, Any]
    sent: dict[str, Array]
    delays: dict[str, Any]
    ports: dict[str, dict[str, Any]]
    release: dict[str, Any]
    rules: dict[str, Any]


def _all(what: str, kind: type) -> Callable[[Any], dict]:
    """Field converter: a dict by name, refused unless all in it are of one kind; None: of none."""

    def convert(found: Any) -> dict:
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise TypeError(f"{what}s must be a dict by name; got {type(found).__name__}")
        for name, x in found.items():
            if not isinstance(x, kind):
                raise TypeError(
                    f"{what} {name!r} must be a {kind.__name__}; got {type(x).__name__} {brief(x)}:"
                    f" pass nj.{kind.__name__}(...)"
                )
        return found

    return convert


@described
class Network(eqx.Module):
    """Structure alone; weights and state are passed in. `gaps` are gap junctions by name.

    Raises `TypeError` for what is no `Layer`, `Projection` or `GapJunctions`, and `ValueError` for
    a projection that ends nowhere, does not fit its layers or delays an external input, for windows
    that number a layer's maps in another order of axes, for a loop without delay, and for gap
    junctions between layers that are not there, of other sizes, without a potential or whose
    neurons take no conductance.

    >>> layers = {"h": nj.Layer(100, nj.LIF())}
    >>> nj.Network(layers, {"in": nj.Projection("x", "h", nj.Dense(64, 100))})
    Network: 1 layer, 100 neurons, 6,400 synapses
      h: 100 LIF
      in: x -> h, Dense 64 x 100, 6,400 synapses, plastic
    """

    layers: dict[str, Layer] = eqx.field(converter=_all("layer", Layer))
    projections: dict[str, Projection] = eqx.field(converter=_all("projection", Projection))
    gaps: dict[str, GapJunctions] = eqx.field(
        default=None, converter=_all("gap junction", GapJunctions)
    )

    def __check_init__(self):
        for name, p in self.projections.items():
            self._check_ends(name, p)
        _given.maps(self.projections)
        for name, gap in self.gaps.items():
            self._check_gap(name, gap)
        for name, layer in self.layers.items():
            for port, to in _targets(name, layer)[1:]:
                if to in self.layers:
                    raise ValueError(
                        f"layer {to!r} must have another name, as port {port!r} of layer {name!r}"
                        " goes by it"
                    )
        self.order()

    def _check_ends(self, name: str, p: Projection) -> None:
        if p.post not in self.layers:
            raise ValueError(
                f"projection {name!r} ends at {p.post!r}, which is no layer, {sorted(self.layers)}"
                f"{_given.meant(p.post, self.layers)}"
            )
        ports = self.layers[p.post].ports
        if p.port is not None and p.port not in ports:
            raise ValueError(
                f"projection {name!r} ends at port {p.port!r}, which layer {p.post!r} lacks, whose"
                f" ports are {sorted(ports)}{_given.meant(p.port, ports)}"
            )
        if not getattr(self.layers[p.post].neuron, "hears", True):
            raise ValueError(
                f"projection {name!r} must not end at layer {p.post!r}, a source, which hears none"
            )
        self._check_sizes(f"projection {name!r} has", p)

    def _check_sizes(self, which: str, p: Projection | GapJunctions) -> None:
        for end, n in (("pre", p.connectivity.n_pre), ("post", p.connectivity.n_post)):
            layer = self.layers.get(getattr(p, end))
            if layer is not None and layer.n != n:
                raise ValueError(
                    f"{which} {n} {end} neurons; layer {getattr(p, end)!r} has {layer.n}"
                )

    def _check_gap(self, name: str, gap: GapJunctions) -> None:
        which = f"gap junctions {name!r}"
        for layer in (gap.pre, gap.post):
            if layer not in self.layers:
                raise ValueError(
                    f"{which} must join layers, {sorted(self.layers)}; got {brief(layer)}"
                    f"{_given.meant(layer, self.layers)}"
                )
            neuron, n = self.layers[layer].neuron, self.layers[layer].n
            state = jax.eval_shape(lambda neuron=neuron, n=n: neuron.init((n,)))
            if not hasattr(neuron, "potential") and not hasattr(state, "v"):
                raise ValueError(
                    f"{which} must join layers with a potential; the state of"
                    f" {type(neuron).__name__}, layer {layer!r}, has no v"
                )
        neuron = self.layers[gap.post].neuron
        if not takes(neuron, "conductance"):
            raise ValueError(
                f"{which} must end at neurons that take a conductance;"
                f" {type(neuron).__name__}.step, layer {gap.post!r}, takes none: give it a keyword"
                " conductance, uS"
            )
        self._check_sizes(f"{which} have", gap)

    def order(self) -> tuple[str, ...]:
        """Layers such that each comes after those that it hears without delay."""
        graph = {name: set() for name in sorted(self.layers)}
        for p in self.projections.values():
            if not p.late and p.pre in self.layers:
                graph[p.post].add(p.pre)
        try:
            ordered = {name: sorted(before) for name, before in graph.items()}
            return tuple(TopologicalSorter(ordered).static_order())
        except CycleError as error:
            raise ValueError(f"projections without delay form a loop: {error.args[1]}") from None

    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Layers that run step by step together; each group after those that it hears.

        Those on a loop must, and those that a delayed projection or a gap junction links; with
        them go those that only small projections link to the group before.
        """
        inner = [self.projections[n] for n in self.internal()]
        large = {(p.pre, p.post) for p in inner if _pairs(p) >= _worth(self.layers[p.pre])}
        out: list[tuple[str, ...]] = []
        touch = [(x.pre, x.post) for x in self.gaps.values()]
        for loop in _loops(self.layers, inner, touch):
            if out and not large & {(pre, post) for pre in out[-1] for post in loop}:
                loop = out.pop() + loop
            out.append(loop)
        return tuple(out) or ((),)

    def onto(self, layers: tuple[str, ...]) -> "Network":
        """These layers alone, and all that ends at them."""
        kept = {n: p for n, p in self.projections.items() if p.post in layers}
        gaps = {n: x for n, x in self.gaps.items() if x.post in layers}
        return Network({n: self.layers[n] for n in layers}, kept, gaps)

    def external(self) -> tuple[str, ...]:
        """Names of projections that start outside the network."""
        return tuple(n for n in sorted(self.projections) if self._pre(n) not in self.layers)

    def unsteady(self) -> tuple[str, ...]:
        """Names of projections from outside with a release or a delay: read in each step."""
        return tuple(n for n in self.external() if not self.projections[n].steady)

    def internal(self) -> tuple[str, ...]:
        """Names of projections between layers."""
        return tuple(n for n in sorted(self.projections) if self._pre(n) in self.layers)

    def plastic(self) -> tuple[str, ...]:
        """Names of projections that learn."""
        return tuple(n for n in sorted(self.projections) if self.projections[n].plastic)

    def with_totals(self, state: State) -> "Network":
        """The same network, whose gap junctions keep the sum of their conductances."""
        v = {n: x.pre for n, x in self.gaps.items()}
        v = {n: potential(self.layers[pre].neuron, state.neurons[pre]) for n, pre in v.items()}
        gaps = {n: x.with_total(v[n]) for n, x in self.gaps.items()}
        return replace(self, gaps=gaps) if gaps else self

    def without(self, *names: str) -> "Network":
        """The same network less some projections."""
        kept = {n: p for n, p in self.projections.items() if n not in names}
        return Network(self.layers, kept, self.gaps)

    def _pre(self, name: str) -> str:
        return self.projections[name].pre

    def init_weights(
        self, key: Any, make_weights: MakeWeights = ideal(), dtype: DTypeLike = float
    ) -> dict[str, Weights]:
        """Each projection's initial weights, held by whatever `make_weights` makes of them.

        Raises `TypeError` for a key that is none, and for what makes no weights.
        """
        key, made = prng_key(key), dict[str, Weights]()
        if make_weights is ideal:
            raise TypeError("make_weights must make Weights; got the function ideal: pass ideal()")
        for name, p in self.projections.items():
            w = p.initial(fold(key, name), dtype)
            made[name] = make_weights(w, p.connectivity, fold(key, f"{name} made"))
            if not callable(getattr(made[name], "apply", None)):
                raise TypeError(
                    f"make_weights must make Weights, as nj.ideal() does; got {type(made[name])}"
                    f" for projection {name!r}"
                )
        return made

    def init(self, dtype: DTypeLike = float, *, learn: bool = False) -> State:
        """Everything at rest, nothing under way; with `learn` no spike seen by any rule yet."""
        late = {n: p for n, p in self.projections.items() if p.late}
        releasing = {n: p for n, p in self.projections.items() if p.release is not None}
        layers = {n: x.init(dtype) for n, x in self.layers.items()}
        return State(
            {n: x[0] for n, x in layers.items()},
            {n: x[1] for n, x in layers.items()},
            {p.pre: jnp.zeros(p.connectivity.n_pre, dtype) for p in late.values()},
            {n: under_way(p, dtype) for n, p in late.items() if p.delay != 1},
            {n: x[2] for n, x in layers.items()},
            {n: p.release.init((p.connectivity.n_pre,), dtype) for n, p in releasing.items()},
            self.init_rules(dtype) if flag("learn")(learn) else {},
        )

    def init_rules(self, dtype: DTypeLike = float) -> dict[str, Any]:
        """Traces of each rule that learns while the network runs, at rest."""
        found = {n: self.projections[n].connectivity for n in self.learning()}
        return {n: self.rule(n).init(c, dtype) for n, c in found.items()}

    def rule(self, name: str) -> Any:
        """What the projection learns by: its own rule, or that of the layer it ends at."""
        p = self.projections[name]
        return self.layers[p.post].rule if p.rule is None else p.rule

    def learning(self) -> tuple[str, ...]:
        """Names of projections that have a rule which can run with the network."""
        return tuple(n for n in self.plastic() if runs(self.rule(n)))

    def drive(self, weights: Any, inputs: Any, *, key: Array | None = None) -> dict[str, Array]:
        """Current from outside into each layer, in one product: [n], or [T, n] over time, nA.

        What arrives at a named port stands under "layer.port"; projections with a release or a
        delay are left out, as they are read step by step.

        An input [n_in] is read once; [T, n_in] changes with time, and step t reads it with the
        noise of fold_in(key, t). Raises `ValueError` for an input that is missing, that no
        projection reads, of another shape or not finite.
        """
        inputs = _given.inputs(self, inputs)
        _given.weights(self, weights)
        return currents(self, weights, inputs, key, besides=self.unsteady())

    def step(
        self,
        weights: dict[str, Weights],
        state: State,
        drive: dict[str, Any],
        *,
        dt: Any,
        key: Array | None = None,
        inputs: dict[str, Array] | None = None,
        learn: bool = False,
        signals: dict[str, Array] | None = None,
        ahead: dict[str, Array] | None = None,
    ) -> Any:
        """All layers after `dt` ms under the external currents `drive`, [n] of each layer, nA.

        Returns (state, records); with `learn` (weights, state, records), each plastic projection
        changed by its rule after its layer fired. `inputs` [n_in] of this step are read by
        projections from outside that `drive` leaves out, `signals`, one number or [n], by the
        rules of the layers that they name. A state of `init(learn=True)` has traces. `ahead` are
        spikes [n_pre] that arrive in this step by projection, where they were gathered before it.
        Raises `ValueError` for a current of another shape, and `TypeError` for a model whose
        `step` does not return (state, output), or a state unlike the one it got.
        """
        dt = dt if isinstance(dt, Tracer) else step_size(dt)
        _given.weights(self, weights)
        _given.state(self, state)
        _given.mapping("drive", drive)
        stepwise = self._stepwise(state, inputs, flag("learn")(learn))
        inputs = {} if inputs is None else inputs
        records: dict[str, Record] = {}
        arrived: dict[str, Arrived] = {}
        for name in self.order():
            onto = {n: self.projections[n] for n in stepwise if self.projections[n].post == name}
            spikes = {n: self._sent(n, state, records, inputs) for n in onto}
            came = delivered(onto, weights, spikes, state, dt, key, ahead or {})
            arrived |= came
            heard = self._heard(name, drive, came)
            key_n = fold(fold(key, "layers"), name)
            records[name] = self._layer_step(name, state, heard, dt, key_n)
        new = _after(state, records, arrived, inputs)
        if not learn:
            return new, records
        changed, rules = self._learnt(
            weights, state.rules, arrived, records, {} if signals is None else signals, dt, key
        )
        return weights | changed, new._replace(rules=rules), records

    def _heard(
        self, name: str, drive: dict[str, Any], came: dict[str, Arrived]
    ) -> dict[str | None, Array]:
        """Current onto each port of a layer: from outside, and what came by each projection."""
        layer = self.layers[name]
        total = {port: drive[to] for port, to in _targets(name, layer) if to in drive}
        for to, current in total.items():
            _given.drive(at(name, to), layer.n, current)
        for n, arrived in came.items():
            port, heard = self.projections[n].port, arrived.current
            total[port] = total[port] + heard if port in total else heard
        return total

    def _layer_step(
        self, name: str, state: State, heard: dict[str | None, Array], dt: Any, key: Array | None
    ) -> Record:
        """One layer after `dt` ms of what its ports and gap junctions hear."""
        layer, current = self.layers[name], heard.pop(None, None)
        return layer.step(
            state.neurons[name], state.synapses[name],
            _no_current(layer, state.neurons[name]) if current is None else current,
            dt=dt, ports=state.ports[name], onto=heard,  # pyright: ignore[reportArgumentType]
            gap=self._gap(name, state), key=key, name=name,
        )  # fmt: skip

    def _gap(self, name: str, state: State) -> tuple[Array, Array] | None:
        """Current and conductance of all gap junctions onto a layer, from the step before."""
        heard = None
        for _, gap in sorted(self.gaps.items()):
            if gap.post == name:
                own = gap.heard(potential(self.layers[gap.pre].neuron, state.neurons[gap.pre]))
                heard = own if heard is None else (heard[0] + own[0], heard[1] + own[1])
        return heard

    def _stepwise(self, state: State, inputs: dict[str, Array] | None, learn: bool) -> list[str]:
        """Projections that are read in the step, sorted; those from outside need inputs."""
        outside = {*self.unsteady(), *(state.rules if learn else ())} & {*self.external()}
        for name in sorted(outside):
            if self._pre(name) not in (inputs or {}):
                raise ValueError(
                    f"inputs must have {self._pre(name)!r}, which projection {name!r} reads in each"
                    f" step: pass inputs={{{self._pre(name)!r}: x}}"
                )
        return sorted({*self.internal(), *outside})

    def _sent(self, name: str, state: State, records: dict, inputs: dict[str, Array]) -> Array:
        """What a projection is handed in the step: output of this one, or of the one before."""
        pre = self._pre(name)
        if self.projections[name].late:
            return state.sent[pre]
        return _now(pre, records, inputs)

    def _learnt(self, weights, rules, arrived, records, signals, dt, key):
        """Weights and traces of the projections that have traces, after the step."""
        changed, after = {}, {}
        for name, traces in rules.items():
            p, rule, came = self.projections[name], self.rule(name), arrived[name]
            key_n, post = fold(fold(key, "learn"), name), records[p.post].z
            if hasattr(rule, "visit"):
                after[name], visits = rule.visit(traces, came.spikes, post, dt=dt)
                changed[name] = visited(weights[name], visits, key=key_n, after=came.current)
            else:
                told = {"dt": dt, "signal": signals.get(p.post)}
                after[name], dw = rule.step(traces, p.connectivity, came.spikes, post, **told)
                changed[name] = weights[name].program(dw, key=key_n)
        return changed, after

    def __repr__(self) -> str:
        n = sum(layer.n for layer in self.layers.values())
        synapses = [p.n_synapses for p in self.projections.values()]
        total = [] if None in synapses else [f"{sum(x or 0 for x in synapses):,} synapses"]
        layers = f"{len(self.layers)} layer{'s' * (len(self.layers) != 1)}"
        parts = (self.layers | self.projections | self.gaps).items()
        lines = [f"  {name}: {repr(x).partition(': ')[2]}" for name, x in parts]
        return "\n".join([f"Network: {', '.join([layers, f'{n:,} neurons', *total])}", *lines])


def _after(
    state: State, records: dict[str, Record], arrived: dict[str, Arrived], inputs: dict[str, Array]
) -> State:
    """What every layer and projection came to; the traces of rules are those of before."""
    return State(
        {n: r.neuron for n, r in records.items()},
        {n: r.synapse for n, r in records.items()},
        {n: _now(n, records, inputs).astype(x.dtype) for n, x in state.sent.items()},
        state.delays | {n: a.under_way for n, a in arrived.items() if n in state.delays},
        {n: {m: r.state for m, r in x.ports.items()} for n, x in records.items()},
        state.release | {n: a.release for n, a in arrived.items() if n in state.release},
        state.rules,
    )


def _targets(name: str, layer: Layer) -> list[tuple[str | None, str]]:
    """Ports of a layer, and where `drive` has the current for each."""
    return [(None, name), *((port, at(name, port)) for port in layer.ports)]


def _now(name: str, records: dict[str, Record], inputs: dict[str, Array]) -> Array:
    """What a layer or an input sends in this step."""
    return records[name].z if name in records else real(inputs[name])


def _no_current(layer: Layer, neuron: Any) -> Array:
    """Zeros as precise as the first float of the neuron's state."""
    floats = [x.dtype for x in jax.tree.leaves(neuron) if eqx.is_inexact_array(x)]
    return jnp.zeros(layer.n, floats[0] if floats else float)


def _pairs(p: Projection) -> int:
    """Pairs of neurons in one product; none where a product visits spikes one by one."""
    if listed(p.connectivity) or isinstance(p.connectivity, Procedural):
        return 0
    return p.connectivity.n_pre * p.connectivity.n_post


def _worth(layer: Layer) -> int:
    """Pairs that make a pass of its own worth while for what `layer` sends."""
    spike = getattr(layer.neuron, "spike", heaviside)
    return _WORTH_A_PASS if spike == heaviside else _WORTH_A_PASS_BACK


def _loops(
    layers: Iterable[str], links: list[Projection], touch: list[tuple[str, str]]
) -> Iterable[tuple[str, ...]]:
    """Layers that hear one another, a delay making a link go both ways, in order of depth."""
    hears = {n: {n} | {p.pre for p in links if p.post == n} for n in sorted(layers)}
    for p in links:
        if p.late:
            hears[p.pre].add(p.post)
    for one, other in touch:
        hears[one].add(other)
        hears[other].add(one)
    for via in hears:  # Warshall: what is heard at second hand, and so on
        for heard in hears.values():
            if via in heard:
                heard |= hears[via]
    loop = {n: tuple(sorted(m for m in heard if n in hears[m])) for n, heard in hears.items()}
    before = {loop[n]: sorted({loop[m] for m in hears[n]} - {loop[n]}) for n in hears}
    return TopologicalSorter(before).static_order()  # of sorted parts: the same in every process
