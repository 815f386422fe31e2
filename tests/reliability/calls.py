"""Every public name, called with one argument that is wrong or extreme; run as a script.

    python tests/reliability/calls.py SEED NUMBER

prints what is a fault, a line each, and how many calls ended how. It is a script since tests
check types beforehand, which users do not, and so that a crash is seen from outside.
"""

import collections
import dataclasses
import functools
import inspect
import json
import random
import resource
import signal
import sys
import time
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hardware as hw
import neurojax as nj
from hardware import energy, presets, routing, topology
from neurojax import wta_broadcast as wb

GIB = 1 << 30
SECONDS = 5.0  # of the processor; more is a hang: compiling takes less

# --- a right call of every name: the arguments, and what else is done with the result ---


@functools.cache
def parts():
    """What calls share."""
    key = jax.random.key(0)
    net = nj.Network(
        {"h": nj.Layer(3, nj.LIF()), "o": nj.Layer(2, nj.LIF())},
        {
            "in": nj.Projection("x", "h", nj.Dense(4, 3)),
            "ho": nj.Projection("h", "o", nj.Dense(3, 2), delay=1),
        },
    )
    layers = [nj.Layer(4, nj.LIF(), rule=nj.ThreeFactor())]
    taught = nj.structured(key, 3, layers, 2, recurrence=nj.Recurrence("dense"), population=1)
    edges, n = topology.wiring(net)
    mesh = topology.Mesh(2, 2, 2)
    placed = topology.linear(n, mesh)
    spikes = jnp.ones(n)
    traffic = routing.unicast(edges, placed, mesh, spikes)
    train = hw.Train(8)
    return types.SimpleNamespace(
        key=key, net=net, weights=net.init_weights(key), edges=edges, n=n, mesh=mesh, train=train,
        placed=placed, spikes=spikes, traffic=traffic, taught=taught,
        device=hw.Device(hw.linear(8)), one_side=hw.OneSide(train),
        ring=nj.watts_strogatz(None, 20, 20, 4, 0.0),
    )  # fmt: skip


def stepped(neuron):
    state, z = neuron.step(neuron.init((3,)), jnp.ones(3), dt=1.0)
    return state, z


def driven(synapse):
    return synapse.step(synapse.init((3,)), jnp.ones(3), dt=1.0)


def visited(rule):
    return rule.visit(rule.init(nj.Dense(2, 3)), jnp.ones(2), jnp.ones(3), dt=1.0)


def wired(c):
    return c.apply(jnp.ones(c.shape), jnp.ones(c.n_pre))


def pulsed(device):
    cells = device.pulse(device.init(jnp.full(2, 2e-6)), jnp.array([1, 0]), jnp.array([0, 1]))
    return cells, device.read(cells)


def moved(response):
    return response(jnp.zeros(2), jnp.array([0.0, 3.0]))


def arrays(make):
    policy_made = make(jnp.full((1, 2), 0.25), nj.Dense(2, 1), parts().key)
    return policy_made.w, policy_made.apply(jnp.ones(2))


def programmed(policy):
    return arrays(hw.crossbar(parts().device, policy, 1.0))


def fresh(system):
    return wb.init(system, optax.sgd(0.1), parts().key)


def usual(model) -> dict:
    """The fields of a model that has a default for each, and those."""
    return {
        f.name: f.default
        for f in dataclasses.fields(model)
        if f.default is not dataclasses.MISSING and f.default is not None
    }


def models():
    """Neurons and releases that need no argument: each with its defaults."""
    for name in nj.__all__:
        model = getattr(nj, name)
        if dataclasses.is_dataclass(model) and hasattr(model, "step") and hasattr(model, "init"):
            if all(
                f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
                for f in dataclasses.fields(model)
            ):
                neuron = "current" in inspect.signature(model.step).parameters
                use = stepped if neuron and name != "Poisson" else lambda m: m.init((3,))
                yield f"nj.{name}", (model, usual(model), use)


def calls():
    """Name: function, arguments, and what is done with what comes back."""
    p = parts()
    key, x, wiring = p.key, jnp.linspace(0.0, 1.0, 4), nj.Dense(2, 3)
    picture = jnp.ones((4, 4))
    v, th, z = jnp.array([0.5, 1.0]), jnp.ones(2), jnp.zeros(2)
    learner = nj.learning.Perceptron((3, 2), nj.learning.DFA(), optax.sgd(0.1))
    system = dict(
        network=p.taught, feedback={"h1": nj.broadcast(key, 4, 2)}, n_steps=4, start=1, dt=1.0,
        population=1,
    )  # fmt: skip
    made = wb.System(**system)
    state = fresh(made)
    learn = dict(
        system=made, tx=optax.sgd(0.1), state=state, x=jnp.ones((2, 3)), target=jnp.array([0, 1])
    )
    tone, weights = state.homeostasis, state.weights
    window = dict(v=v, threshold=th, z=z)
    images, labels = np.zeros((2, 4, 4), np.uint8), np.array([0, 1])
    sent = nj.data.events([0, 2100], [0, 1], shape=(1, 2, 1))
    sound = np.sin(np.arange(400.0))
    did = energy.Activity(*[jnp.ones(())] * 10)
    yield from {
        **{name: call for name, call in models() if call[1]},
        "nj.ALIF": (nj.ALIF, dict(tau_mem=20.0, r_mem=1.0, v_th=1.0, v_rest=0.0, v_reset=0.0,
            t_ref=1.0, tau_adapt=9.0, beta_adapt=1.0, reset="hard"), stepped),
        "nj.LIF": (nj.LIF, dict(tau_mem=20.0, r_mem=1.0, v_th=1.0, v_rest=0.0, v_reset=0.0,
            t_ref=1.0, reset="hard", spike=nj.surrogate.heaviside), stepped),
        "nj.LIF.step": (nj.LIF().step, dict(state=nj.LIF().init((4,)), current=x, dt=1.0), None),
        "nj.LIF.init": (nj.LIF().init, dict(shape=(4,), dtype=jnp.float32), None),
        "nj.LeakyIntegrator": (nj.LeakyIntegrator, dict(tau_mem=20.0, r_mem=1.0), stepped),
        "nj.Poisson": (nj.Poisson, dict(rate=20.0), lambda n: n.init((3,))),
        "nj.Alpha": (nj.Alpha, dict(tau_syn=5.0), driven),
        "nj.Exponential": (nj.Exponential, dict(tau_syn=5.0), driven),
        "nj.DoubleExponential": (nj.DoubleExponential, dict(tau_rise=2.0, tau_decay=9.0), driven),
        "nj.Conductance": (nj.Conductance, dict(kinetics=nj.Exponential(5.0), e_rev=-80.0,
            gate=nj.MagnesiumBlock()), driven),
        "nj.MagnesiumBlock": (nj.MagnesiumBlock, dict(mg=1.0), lambda b: b(v)),
        "nj.Delays": (nj.Delays, dict(steps=[1, 2], longest=3), None),
        "nj.steps": (nj.steps, dict(ms=[1.0, 2.0], dt=0.5), None),
        "nj.Delay": (nj.Delay, dict(steps=2), lambda d: d.read(d.write(d.init((2,)), th))),
        "nj.Band": (nj.Band, dict(mask=jnp.ones((9, 3), bool), radius=1), wired),
        "nj.Dense": (nj.Dense, dict(n_pre=2, n_post=3, count=jnp.ones((3, 2), int)), wired),
        "nj.Dense.apply": (wiring.apply, dict(w=jnp.ones((3, 2)), s=jnp.ones(2)), None),
        "nj.Dense.outer": (wiring.outer, dict(post=jnp.ones(3), pre=jnp.ones(2)), None),
        "nj.FanIn": (nj.FanIn, dict(index=[[0, 1], [1, 2]], n_pre=3), wired),
        "nj.FanOut": (nj.FanOut, dict(index=[1, 2, 0], start=[0, 2, 3], n_post=3, longest=2,
            native=False), wired),
        "nj.Broadcast": (nj.Broadcast, dict(spread=jnp.eye(3, 2), channels=jnp.eye(2)),
            lambda b: b(jnp.array([0.5, -0.5]))),
        "nj.HardWTA": (nj.HardWTA, dict(margin=0.1), lambda t: t(x, 2)),
        "nj.SoftWTA": (nj.SoftWTA, dict(gain=3.0, margin=0.1), lambda t: t(x, 2)),
        "nj.SoftWTA.call": (nj.SoftWTA(), dict(scores=x, target=2), None),
        "nj.Homeostasis": (nj.Homeostasis, dict(target=0.1, rate=0.5, v_min=0.1, penalty=0.1),
            lambda h: h.step(h.init(th), v)),
        "nj.Ideal": (nj.Ideal, dict(w=jnp.ones((3, 2)), connectivity=wiring),
            lambda w: w.program(jnp.ones((3, 2))).apply(jnp.ones(2))),
        "nj.Layer": (nj.Layer, dict(n=3, neuron=nj.LIF(), synapse=nj.Exponential(5.0),
            rule=nj.ThreeFactor(), winners=2), None),
        "nj.Modulators": (nj.Modulators, dict(k=jnp.zeros((1, 3)), a={"h": jnp.ones((2, 1))},
            gain=3.0, rho_m=0.5, rho_s=0.5), lambda m: m.step(m.init(4), x, 0)),
        "nj.Network": (nj.Network, dict(layers=p.net.layers, projections=p.net.projections),
            lambda n: n.init()),
        "nj.Network.init_weights": (p.net.init_weights, dict(key=key, make_weights=nj.ideal()),
            None),
        "nj.Network.step": (p.net.step, dict(weights=p.weights, state=p.net.init(),
            drive={"h": jnp.ones(3)}, dt=1.0), None),
        "nj.Projection": (nj.Projection, dict(pre="x", post="h", connectivity=wiring, delay=1,
            gain=1.0, w=jnp.ones((3, 2))), lambda p: p.initial(key)),
        "nj.Recurrence": (nj.Recurrence, dict(kind="local", radius=2, p_rewire=0.2, gain=1.0),
            lambda r: [x.initial(key) for x in r.projections(key, "h", 20).values()]),
        "nj.STDP": (nj.STDP, dict(a_plus=0.1, a_minus=0.1, tau_plus=20.0, tau_minus=20.0,
            pairing="all", dependence=None), visited),
        "nj.TripletSTDP": (nj.TripletSTDP, dict(a2_plus=0.1, a3_plus=0.1, a2_minus=0.1,
            a3_minus=0.1, tau_x=9.0, tau_y=9.0, tau_plus=9.0, tau_minus=9.0, pairing="all",
            dependence=None), visited),
        "nj.triplet_hippocampus": (nj.triplet_hippocampus, dict(pairing="all", minimal=True),
            visited),
        "nj.triplet_visual_cortex": (nj.triplet_visual_cortex, dict(pairing="all", minimal=True),
            visited),
        "nj.InhibitorySTDP": (nj.InhibitorySTDP, dict(eta=0.1, rho_0=3.0, tau=20.0), visited),
        "nj.STDP.visit": (nj.STDP().visit, dict(state=nj.STDP().init(wiring), pre=jnp.ones(2),
            post=jnp.ones(3), dt=1.0), None),
        "nj.DopamineSTDP": (nj.DopamineSTDP, dict(pairs=nj.STDP(), tau_c=9.0, tau_d=9.0),
            lambda r: r.step(r.init(wiring), wiring, jnp.ones(2), jnp.ones(3), dt=1.0, signal=1)),
        "nj.WeightDependence": (nj.WeightDependence, dict(mu_plus=0.5, mu_minus=0.5, w_max=1.0),
            lambda d: (d.plus(x), d.minus(x))),
        "nj.SynapticScaling": (nj.SynapticScaling, dict(target=5.0, tau=1e4),
            lambda s: s.change(jnp.ones((3, 2)), wiring, jnp.ones(3), interval=1.0)),
        "nj.SynapticScaling.change": (nj.SynapticScaling().change, dict(w=jnp.ones((3, 2)),
            connectivity=wiring, r=jnp.ones(3), interval=1.0), None),
        "nj.normalizing": (nj.normalizing, dict(w=jnp.ones((3, 2)), connectivity=wiring,
            total=1.0), None),
        "nj.TsodyksMarkram": (nj.TsodyksMarkram, dict(U=0.5, tau_rec=9.0, tau_fac=9.0,
            tau_psc=2.0), stepped),
        "nj.Quantal": (nj.Quantal, dict(n_sites=2, U=0.5, tau_rec=9.0, tau_fac=9.0),
            lambda r: r.step(r.init((3,)), jnp.ones(3), dt=1.0, key=key)),
        "nj.GapJunctions": (nj.GapJunctions,
            dict(pre="a", post="b", connectivity=nj.Dense(2, 2), g=0.1),
            lambda g: (g.current(v), g.heard(v), g.check(dt=0.1, c=0.2))),
        "nj.NMDAGate": (nj.NMDAGate, dict(tau_rise=2.0, tau_decay=9.0, alpha=0.5), stepped),
        "nj.ThreeFactor": (nj.ThreeFactor, dict(kappa_e=0.5, decay=0.5, window=nj.always),
            lambda r: r.factor(nj.LIF(), nj.Post(picture, picture), picture, dt=1.0)),
        "nj.always": (nj.always, window, None), "nj.post_spike": (nj.post_spike, window, None),
        "nj.boxcar": (nj.boxcar, dict(width=1.0), lambda h: h(v, th, z)),
        "nj.triangle": (nj.triangle, dict(width=1.0), lambda h: h(v, th, z)),
        "nj.bernoulli": (nj.bernoulli, dict(key=key, n_pre=9, n_post=9, p=0.5, autapses=False),
            None),
        "nj.fixed_total": (nj.fixed_total, dict(key=key, sizes_pre=[3, 4], sizes_post=[5],
            number=[[6, 8]]), None),
        "nj.blocks": (nj.blocks, dict(key=key, sizes_pre=[3, 4], sizes_post=[5], p=[[0.5, 0.5]]),
            None),
        "nj.broadcast": (nj.broadcast, dict(key=key, n=5, n_classes=3, bandwidth=2), None),
        "nj.by_sender": (nj.by_sender, dict(pre=[2, 0], post=[1, 1], n_pre=3, n_post=2,
            w=jnp.ones(2)), None),
        "nj.class_scores": (nj.class_scores, dict(y=x, n_classes=2), None),
        "nj.k_winners": (nj.k_winners, dict(v=x, k=2), None),
        "nj.distance_dependent": (nj.distance_dependent, dict(key=key, shape=(3, 4), k=3,
            profile=nj.exponential_profile(1.0)), None),
        "nj.exponential_profile": (nj.exponential_profile, dict(scale=2.0),
            lambda f: f(np.array([0.0, 1.0]))),
        "nj.gaussian_profile": (nj.gaussian_profile, dict(scale=2.0),
            lambda f: f(np.array([0.0, 1.0]))),
        "nj.fan_in": (nj.fan_in, dict(key=key, n_pre=9, n_post=5, density=0.5), None),
        "nj.fan_out": (nj.fan_out, dict(key=key, n_pre=9, n_post=5, density=0.5), None),
        "nj.fold": (nj.fold, dict(key=key, name="a"), None),
        "nj.ideal": (nj.ideal, dict(bounds=(0.0, 1.0)), lambda m: m(jnp.full((3, 2), 0.5), wiring)),
        "nj.procedural": (nj.procedural, dict(key=key, n_pre=9, n_post=9, density=0.5, spread=0.1,
            autapses=False), wired),
        "nj.Procedural": (nj.Procedural,
            dict(seed=jnp.ones(2, jnp.uint32), factors=None, n_pre=9, n_post=5, k=3,
            autapses=True, native=True), wired),
        "nj.levels": (nj.levels, dict(scale=0.01, bounds=(0.0, 1.0), keep_sign=True),
            lambda m: m(jnp.full((3, 2), 0.5), wiring).level),
        "nj.Levels": (nj.Levels, dict(level=jnp.ones((3, 2), jnp.int8), scale=jnp.asarray(0.1),
            connectivity=wiring), lambda w: w.apply(jnp.ones(2))),
        "nj.as_fan_out": (nj.as_fan_out, dict(fan=nj.fan_in(key, 9, 5, 0.5),
            w=jnp.ones((5, 4))), None),
        "nj.taught": (nj.taught, dict(weights=nj.Ideal(jnp.ones((3, 2)), wiring),
            post=jnp.ones((4, 3)), pre=jnp.ones((4, 2)), key=key), None),
        "nj.nbytes": (nj.nbytes, dict(), None),
        "nj.locally_dense": (nj.locally_dense, dict(key=key, n=20, radius=3, p_rewire=0.3), None),
        "nj.evaluate": (nj.evaluate, dict(learner=learner, state=learner.init(key),
            data=(jnp.ones((4, 3)), jnp.array([0, 1, 1, 0])), key=key), None),
        "nj.fit": (functools.partial(nj.fit, epochs=1), dict(learner=learner,
            data=(jnp.ones((4, 3)), jnp.array([0, 1, 1, 0])), key=key, batch_size=2,
            patience=None, log=None, progress=False),
            lambda f: f.state),
        "nj.long_range": (nj.long_range, dict(key=key, windows=nj.Local2D((1, 4, 4), 2, 3,
            padding=1), fan_in=3), wired),
        "nj.Sheet": (nj.Sheet, dict(features=2, window=3, stride=1, far=2, near=3, near_far=1,
            shared=True), lambda s: s.size((1, 4, 4))),
        "nj.topographic": (nj.topographic, dict(key=key, size=(1, 4, 4), sheets=[nj.Sheet(2, 3)],
            n_classes=2, density=0.5, population=2, inhibition=1.0, max_fan_in=20, gain_in=1.0,
            gain_forward=1.0, gain_recurrent=0.3), None),
        "nj.merged": (nj.merged, dict(fan=nj.fan_in(key, 9, 6, 0.5), population=2), None),
        "nj.modulators": (nj.modulators, dict(key=key, n=2, layers={"h": 4}), None),
        "nj.SurpriseGate": (nj.SurpriseGate, dict(ratio=1.0, low=0.1), None),
        "nj.BudgetGate": (nj.BudgetGate, dict(budget=0.1), None),
        "nj.ChangeGate": (nj.ChangeGate, dict(power=1.0), None),
        "nj.ShuffledGate": (nj.ShuffledGate, dict(gate=nj.SurpriseGate()), None),
        "nj.GatePopulation": (
            nj.GatePopulation, dict(gates=(nj.SurpriseGate(),), a={"h": jnp.ones((4, 1))}), None,
        ),
        "nj.gate_population": (
            nj.gate_population, dict(key=key, gates=(nj.SurpriseGate(),), layers={"h": 4}), None,
        ),
        "nj.normal": (nj.normal, dict(key=key, connectivity=wiring, gain=1.0, dtype=jnp.float32),
            None),
        "nj.one_to_one": (nj.one_to_one, dict(n=4), wired),
        "nj.rewire": (nj.rewire, dict(key=key, fan=nj.fan_in(key, 9, 6, 0.5),
            use=jnp.ones((6, 4)), n=1), None),
        "nj.rewired": (nj.rewired, dict(key=key, weights=nj.ideal()(jnp.ones((6, 4)),
            nj.fan_in(key, 9, 6, 0.5)), n=1), None),
        "nj.simulate": (nj.simulate, dict(net=p.net, weights=p.weights, state=p.net.init(),
            inputs={"x": jnp.ones(4)}, n_steps=4, dt=1.0, every=1, start=2), None),
        "nj.split_bf16": (nj.split_bf16, dict(parts=2), lambda m: m(jnp.ones((3, 2)), wiring).w),
        "nj.structured": (nj.structured, dict(key=key, n_in=4, hidden=[nj.Layer(20, nj.LIF())],
            n_classes=2, density=0.5, population=2, inhibition=1.0, gain_in=1.0, gain_forward=1.0,
            recurrence=nj.Recurrence("none"), readout=nj.LIF()), None),
        "nj.unconstrained": (nj.unconstrained, dict(model=nj.LIF()), lambda f: f[1](f[0])),
        "nj.watts_strogatz": (nj.watts_strogatz, dict(key=key, n_pre=20, n_post=20, k=4,
            p_rewire=0.2), None),
        "nj.watts_strogatz_grid": (nj.watts_strogatz_grid, dict(key=key, shape=(5, 6), k=4,
            p_rewire=0.2), None),
        "nj.augment.affine": (nj.augment.affine, dict(key=key, image=picture, rotation=0.2,
            scale=0.1, shift=1.0, shear=0.1), None),
        "nj.augment.mirrored": (nj.augment.mirrored, dict(key=key, image=picture), None),
        "nj.augment.warp": (nj.augment.warp, dict(image=picture, matrix=jnp.eye(2),
            offset=jnp.zeros(2)), None),
        "nj.data.check": (nj.data.check, dict(images=images, labels=labels, n_classes=2), None),
        "nj.data.load": (nj.data.load, dict(name="digits", data_dir=None, val_size=9, seed=0),
            None),
        "nj.Logistic": (nj.Logistic, dict(slope=1.2, theta=2.8), lambda f: f(v)),
        "nj.PoissonInput": (nj.PoissonInput, dict(rate=20.0, n_inputs=50), lambda n: n.init((3,))),
        "nj.SpikeTimes": (nj.SpikeTimes, dict(times=[[1.0, 2.5], [4.0, 9.0]]),
            lambda n: n.init((2,))),
        "nj.StepCurrent": (nj.StepCurrent, dict(times=[1.0, 2.0], values=[0.5, 1.5]),
            lambda n: n.init((3,))),
        "nj.encoding.burst": (nj.encoding.burst, dict(x=x, n_steps=9, n_max=2), None),
        "nj.encoding.delta": (nj.encoding.delta, dict(x=picture, threshold=0.5), None),
        "nj.encoding.log_latency": (nj.encoding.log_latency, dict(x=x, n_steps=9, dt=1.0), None),
        "nj.encoding.phase": (nj.encoding.phase, dict(x=x, n_bits=4), None),
        "nj.encoding.population": (nj.encoding.population, dict(x=x, m=5), None),
        "nj.encoding.rank_order": (nj.encoding.rank_order, dict(x=x), None),
        "nj.encoding.sigma_delta": (nj.encoding.sigma_delta, dict(x=picture, threshold=0.5), None),
        "nj.encoding.direct_current": (nj.encoding.direct_current, dict(x=x, n_steps=3), None),
        "nj.encoding.latency": (nj.encoding.latency, dict(x=x, n_steps=3), None),
        "nj.encoding.poisson": (nj.encoding.poisson, dict(key=key, x=x, n_steps=3, dt=1.0,
            max_rate=100.0), None),
        "nj.encoding.rows": (nj.encoding.rows, dict(image=picture), None),
        "nj.metrics.clustering": (nj.metrics.clustering, dict(wiring=p.ring, key=key, n_sources=5),
            None),
        "nj.metrics.degrees": (nj.metrics.degrees, dict(wiring=p.ring), None),
        "nj.metrics.path_length": (nj.metrics.path_length, dict(wiring=p.ring, key=key,
            n_sources=5), None),
        "nj.metrics.small_world": (nj.metrics.small_world, dict(key=key, wiring=p.ring,
            n_sources=5, n_random=1), None),
        "nj.recording.current": (nj.recording.current, dict(layer="h", neuron=1), None),
        "nj.recording.outputs": (nj.recording.outputs, dict(records={}), None),
        "nj.recording.potential": (nj.recording.potential, dict(layer="h", neuron=[1, 2]), None),
        "nj.recording.spikes": (nj.recording.spikes, dict(layer="h"), None),
        "nj.recording.spike_list": (nj.recording.spike_list, dict(z=picture, dt=1.0), None),
        "nj.surrogate.arctan": (nj.surrogate.arctan, dict(alpha=2.0), lambda s: jax.grad(s)(0.5)),
        "nj.surrogate.boxcar": (nj.surrogate.boxcar, dict(width=2.0), lambda s: jax.grad(s)(0.5)),
        "nj.surrogate.fast_sigmoid": (nj.surrogate.fast_sigmoid, dict(slope=2.0),
            lambda s: jax.grad(s)(0.5)),
        "nj.surrogate.sigmoid": (nj.surrogate.sigmoid, dict(slope=2.0), lambda s: jax.grad(s)(0.5)),
        "nj.surrogate.triangle": (nj.surrogate.triangle, dict(width=2.0),
            lambda s: jax.grad(s)(0.5)),
        "nj.surrogate.heaviside": (nj.surrogate.heaviside, dict(x=x), None),
        "nj.traces.low_pass": (nj.traces.low_pass, dict(x=picture, decay=0.5, init=jnp.ones(4)),
            None),
        "nj.traces.low_pass_reversed": (nj.traces.low_pass_reversed, dict(x=picture, decay=0.5),
            None),
        "wb.System": (wb.System, system, None),
        "wb.system": (wb.system, dict(key=key, network=p.taught, population=1, n_steps=4), None),
        "wb.init": (wb.init, dict(system=made, tx=optax.sgd(0.1), key=key), None),
        "wb.train_step": (wb.train_step, learn, None),
        "wb.predict": (wb.predict, dict(system=made, weights=weights, tone=tone,
            x=jnp.ones((2, 3))), None),
        "wb.present": (wb.present, dict(system=made, weights=weights, tone=tone, x=jnp.ones(3)),
            None),
        "wb.settle": (wb.settle, dict(system=made, state=state, x=jnp.ones((2, 3))), None),
        "wb.instruct": (wb.instruct, dict(system=made, y=jnp.zeros((4, 2)), target=1), None),
        "wb.rule": (wb.rule, dict(system=made, layer="h1"), None),
        "wb.deltas": (wb.deltas, {n: learn[n] for n in ("system", "x", "target")}
            | dict(weights=weights, tone=tone, key=key, gate=None), None),
        "wb.symmetric": (wb.symmetric, dict(system=made, weights=weights, tone=tone,
            x=jnp.ones((2, 3)), target=jnp.array([0, 1]), key=key), None),
        "wb.online_deltas": (wb.online_deltas, dict(system=made, weights=weights, tone=tone,
            x=jnp.ones(3), target=1, key=key), None),
        "wb.update": (wb.update, {n: x for n, x in learn.items()}, None),
        "wb.excited": (wb.excited, dict(system=made, tone=tone, rates={"h1": jnp.ones((2, 4))},
            anneal=1.0), None),
        "wb.Gated": (wb.Gated, dict(gate=nj.SurpriseGate(), state=nj.SurpriseGate().init(),
            key=key), lambda g: g(jnp.ones((2, 2)), jnp.array([0, 1]))),
        "nj.Conv1D": (nj.Conv1D, dict(size=(2, 8), features=4, kernel=3, stride=1, padding=1,
            dilation=1, groups=2, pool=2), wired),
        "nj.Conv2D": (nj.Conv2D, dict(size=(2, 8, 8), features=4, kernel=3, stride=1, padding=1,
            dilation=1, groups=2, pool=2), wired),
        "nj.Local1D": (nj.Local1D, dict(size=(2, 8), features=4, kernel=3, stride=1, padding=1,
            dilation=1, groups=2), wired),
        "nj.Local2D": (nj.Local2D, dict(size=(2, 8, 8), features=4, kernel=3, stride=1, padding=1,
            dilation=1, groups=2), wired),
        "nj.convolutional": (nj.convolutional, dict(size=(1, 8, 8), features=[3, 4], n_classes=2,
            neuron=nj.LIF(), kernel=3, pool=2, rule=None, readout=None, gain_in=1.0,
            gain_forward=1.0), None),
        "interchange.from_snntorch_synaptic": (nj.interchange.from_snntorch_synaptic, dict(
            alpha=0.8, beta=0.9, threshold=1.0, reset="subtract", dt=1.0), lambda m: stepped(m[0])),
        "interchange.SteppedExponential": (nj.interchange.SteppedExponential, dict(tau_syn=5.0,
            order="membrane", held=True), driven),
        "interchange.Passive": (nj.interchange.Passive, dict(tau_mem=9.0, r_mem=1.0, v_rest=0.0),
            stepped),
        "interchange.Integrator": (nj.interchange.Integrator, dict(c_mem=1.0), stepped),
        "interchange.Threshold": (nj.interchange.Threshold, dict(v_th=1.0), stepped),
        "data.events": (nj.data.events, dict(t=[0, 9], x=[0, 1], y=0, p=[0, 1], shape=(1, 2, 2),
            sort=True), None),
        "data.bin_events": (nj.data.bin_events, dict(recording=sent, dt=1.0, n_steps=3,
            binary=False, dtype="uint8"), None),
        "data.rasters": (nj.data.rasters, dict(recordings=[sent, sent], dt=1.0, n_steps=3,
            binary=False, dtype="uint8"), None),
        "data.Rasters": (nj.data.Rasters, dict(x=np.ones((2, 3, 4)), lengths=[1, 3]), None),
        "data.time_surface": (nj.data.time_surface, dict(recording=sent, at=9, tau=5.0), None),
        "data.camera": (nj.data.camera, dict(frames=np.ones((3, 2, 2)), dt=1.0, threshold=0.25,
            dark=0.1), None),
        "data.cochlea": (nj.data.cochlea, dict(sound=sound, rate=2000.0, n=4, dt=1.0, low=100.0,
            high=500.0, threshold=0.1, tau=4.0), None),
        "data.resonances": (nj.data.resonances, dict(n=3, low=100.0, high=500.0), None),
        "data.log_mel": (nj.data.log_mel, dict(sound=sound, rate=2000.0, n_bands=4, dt=10.0,
            low=50.0, high=900.0), None),
        "data.mel_bands": (nj.data.mel_bands, dict(n=4, n_fft=64, rate=2000.0, low=50.0,
            high=900.0), None),
        "data.mel_spikes": (nj.data.mel_spikes, dict(sound=sound, rate=2000.0, threshold=3.0,
            n_bands=4, dt=10.0, low=50.0, high=900.0, floor=60.0), None),
        "data.moving_digits": (nj.data.moving_digits, dict(images=np.ones((2, 4, 4)),
            labels=labels, seed=0), None),
        "data.sums": (nj.data.sums, dict(sets=nj.data.Dataset("mine", *[nj.data.Split(
            np.ones((2, 4, 4), np.float32), np.zeros(2, np.int32))] * 3, 2), seed=0), None),
        "hw.Affine": (hw.Affine, dict(step=0.1, slope=0.5), moved),
        "hw.Bidirectional": (hw.Bidirectional, dict(coder=p.train), programmed),
        "hw.OneSide": (hw.OneSide, dict(coder=p.train), programmed),
        "hw.Unidirectional": (hw.Unidirectional, dict(coder=p.train, upper=0.7, lower=0.2,
            longest=9, every=2), programmed),
        "hw.MixedPrecision": (hw.MixedPrecision, dict(policy=p.one_side, n_pulses=8), programmed),
        "hw.WriteVerify": (hw.WriteVerify, dict(policy=p.one_side, rounds=2), lambda w: arrays(
            hw.crossbar(p.device, p.one_side, 1.0, write=w, kind="reference"))),
        "hw.Single": (hw.Single, dict(n_pulses=8), lambda c: programmed(hw.OneSide(c))),
        "hw.Train": (hw.Train, dict(n_pulses=8, longest=9), lambda c: programmed(hw.OneSide(c))),
        "hw.Device": (hw.Device, dict(up=hw.linear(8), down=None, G_min=1e-6, G_max=1e-5,
            sigma_c2c=0.1, sigma_read=0.1, nu=0.1, t_0=1.0, v_pulse=1.0, t_pulse=1e-7), pulsed),
        "hw.Device.pulse": (p.device.pulse, dict(cells=p.device.init(jnp.full(2, 2e-6)),
            n_up=jnp.array([1, 2]), n_down=0, t=1.0), None),
        "hw.Device.init": (p.device.init, dict(G=jnp.full(2, 2e-6), t=1.0), None),
        "hw.PCM": (hw.PCM, dict(up=hw.linear(8), G_min=0.0, G_max=2e-5, t_0=20.0, t_read=2e-7,
            v_pulse=1.0, t_pulse=1e-7), pulsed),
        "hw.Quantiser": (hw.Quantiser, dict(bits=3, limit=1.0), lambda q: q(x)),
        "hw.Stepwise": (hw.Stepwise, dict(step=hw.querlioz(8, 1.0).step), moved),
        "hw.Stepwise.call": (hw.querlioz(8, 1.0), dict(u=jnp.zeros(2), n=jnp.array([1.0, 2.0])),
            None),
        "hw.Table": (hw.Table, dict(levels=[1e-6, 2e-6], sigma_c2c=0.1, sigma_read=0.1,
            v_pulse=1.0, t_pulse=1e-7), pulsed),
        "hw.crossbar": (hw.crossbar, dict(device=p.device, policy=p.one_side, w_max=1.0,
            write="exact", sigma_d2d=0.1, stuck_low=0.1, stuck_high=0.1, dac=hw.Quantiser(4),
            adc=hw.Quantiser(4), rows=1, longest=9), arrays),
        "hw.exp_step": (hw.exp_step, dict(n_pulses=8, scale=0.001, gamma=2.0, a=0.2, b=0.2), moved),
        "hw.exponential": (hw.exponential, dict(n_pulses=8, a=4.0), moved),
        "hw.linear": (hw.linear, dict(n_pulses=8), moved),
        "hw.piecewise": (hw.piecewise, dict(n_pulses=8, nodes=jnp.ones(3)), moved),
        "hw.power": (hw.power, dict(n_pulses=8, gamma=1.0), moved),
        "hw.querlioz": (hw.querlioz, dict(n_pulses=8, beta=1.0), moved),
        "hw.soft_bounds": (hw.soft_bounds, dict(n_pulses=8), moved),
        "hw.table": (hw.table, dict(G=jnp.array([1e-6, 2e-6]), n_states=3), pulsed),
        "hw.varied": (hw.varied, dict(key=key, device=p.device, shape=(2,), sigma_d2d=0.1,
            stuck_low=0.1, stuck_high=0.1), pulsed),
        "hw.transferred": (hw.transferred, dict(key=key,
            weights={"a": nj.ideal()(jnp.full((1, 2), 0.5), nj.Dense(2, 1))},
            make_weights=hw.crossbar(p.device, p.one_side, 1.0), names=["a"]), None),
        "energy.Chip": (energy.Chip, dict(name="x", synaptic=energy.Constant(1e-12, "here")), None),
        "energy.Constant": (energy.Constant, dict(value=1e-12, source="here", scope="marginal",
            basis="measured", voltage=1.0, node=28, unit="J"), None),
        "energy.activity": (energy.activity, dict(net=p.net, rasters={"h": jnp.ones(3)},
            placement=p.placed, mesh=p.mesh, dt=1.0, n_steps=4, inputs={"x": jnp.ones(4)},
            n_changes=1.0), None),
        "energy.energy": (energy.energy, dict(activity=did, chip=energy.LOIHI), None),
        **{f"presets.{n}": (getattr(presets, n), dict(G_max=2e-5), pulsed)
            for n in presets.__all__ if n not in ("pcm", "gated_schottky")},
        "presets.gated_schottky": (presets.gated_schottky, dict(n_pulses=8), pulsed),
        "presets.pcm": (presets.pcm, {}, pulsed),
        "routing.Delay": (routing.Delay, dict(hop_ew=1e-9, hop_ns=1e-9, tile=1e-9), None),
        "routing.burst": (routing.burst, dict(traffic=p.traffic, service_time=1e-9), None),
        "routing.fullest": (routing.fullest, dict(memory=jnp.array([1, 2])), None),
        "routing.latency": (routing.latency, dict(edges=p.edges, placement=p.placed, mesh=p.mesh,
            traffic=p.traffic, delay=routing.loihi_delay(), service_rate=1e9), None),
        "routing.loihi_delay": (routing.loihi_delay, {}, None),
        "routing.multicast": (routing.multicast, dict(edges=p.edges, placement=p.placed,
            mesh=p.mesh, spikes=p.spikes), None),
        "routing.unicast": (routing.unicast, dict(edges=p.edges, placement=p.placed, mesh=p.mesh,
            spikes=p.spikes), None),
        "routing.tables": (routing.tables, dict(edges=p.edges, placement=p.placed, mesh=p.mesh,
            weight_bits=8), None),
        "sharding.collect": (nj.sharding.collect, dict(net=p.net, weights=p.weights,
            state=p.net.init()), None),
        "sharding.mesh": (nj.sharding.mesh, dict(data=1, neuron=1), None),
        "sharding.place": (nj.sharding.place, dict(mesh=nj.sharding.mesh(), net=p.net,
            weights=p.weights, state=p.net.init()), None),
        "sharding.replicated": (functools.partial(nj.sharding.replicated, tree={"w": jnp.ones(3)}),
            dict(mesh=nj.sharding.mesh()), None),
        "topology.Mesh": (topology.Mesh, dict(nx=2, ny=2, neurons_per_core=4, max_fan_in=9,
            max_fan_out=9), lambda m: topology.linear(3, m, snake=True)),
        "topology.bisected": (topology.bisected, dict(edges=p.edges, n=p.n, mesh=p.mesh), None),
        "topology.by_layer": (topology.by_layer, dict(sizes=[2, 1], mesh=p.mesh), None),
        "topology.check_fan": (topology.check_fan, dict(edges=p.edges, n=p.n, mesh=p.mesh), None),
        "topology.given": (topology.given, dict(core=[3, 0, 3], mesh=p.mesh), None),
        "topology.hops": (topology.hops, dict(edges=p.edges, placement=p.placed, mesh=p.mesh),
            None),
        "topology.linear": (topology.linear, dict(n=3, mesh=p.mesh, snake=True), None),
        "topology.mean_hops": (topology.mean_hops, dict(edges=p.edges, placement=p.placed,
            mesh=p.mesh), None),
        "topology.offsets": (topology.offsets, dict(net=p.net), None),
        "topology.wiring": (topology.wiring, dict(net=p.net), None),
    }.items()  # fmt: skip


# What is called elsewhere, holds what it is given, or says what others must be.
ELSEWHERE = """
    nj.Post nj.Record nj.Visit nj.State nj.SplitBF16 nj.Weights nj.Learner checkpoint plotting
    data.Dataset data.Split metrics.Degrees metrics.Paths metrics.SmallWorld recording.SpikeList
    surrogate.Surrogate wb.Instruction wb.Outcome wb.TrainState wb.factors wb.probe wb.signal
    hw.Coder hw.Crossbar hw.Policy hw.Response hw.Write hw.Mesh energy.Activity energy.Basis
    energy.Energy energy.Route energy.Scope routing.Latency routing.Link routing.Tables
    routing.Traffic nj.check_nir nj.from_nir nj.to_nir data.Events data.Spoken data.opened
    data.read_events data.read_spoken surrogate.above
"""

# --- what is handed over in place of one argument ---

VALUES = {
    "None": None, "'x'": "x", "''": "", "'20'": "20", "b'x'": b"x", "-1": -1, "0": 0, "1": 1,
    "-0.5": -0.5, "0.0": 0.0, "2.5": 2.5, "nan": float("nan"), "inf": float("inf"),
    "-inf": float("-inf"), "1e308": 1e308, "1e-308": 1e-308, "1e-40": 1e-40, "1e30": 1e30,
    "10**9": 10**9, "2**31": 2**31, "2**63": 2**63, "10**30": 10**30, "10**400": 10**400,
    "-10**30": -(10**30), "True": True, "1j": 1j, "[]": [], "()": (), "{}": {}, "[[]]": [[]],
    "[1, [2]]": [1, [2]], "(0, 0)": (0, 0), "(10**9, 10**9)": (10**9, 10**9), "[nan]": [np.nan],
    "object()": object(), "int": int, "nj.LIF": nj.LIF, "nj.LIF()": nj.LIF(), "len": len,
    "hw.linear": hw.linear, "{'h': 3}": {"h": 3}, "{'h': None}": {"h": None}, "{1: 2}": {1: 2},
    "np.nan 3": np.full(3, np.nan), "empty": np.zeros(0), "empty 0 3": np.zeros((0, 3)),
    "wrong shape": np.ones((2, 3, 4, 5)), "one more": np.ones(5), "matrix": np.ones((4, 4)),
    "strings": np.array(["a", "b"]), "objects": np.array([None, 1], object),
    "complex": np.array([1j, 2]), "bools": np.array([True, False]),
    "int8": np.array([1, 2], np.int8), "uint64": np.array([2**63, 1], np.uint64),
    "bfloat16": jnp.ones(2, jnp.bfloat16), "float64": np.array([1e300, 1.0]),
    "key": jax.random.key(1), "keys": jax.random.split(jax.random.key(1)), "inf jax": jnp.inf,
    "huge jax": jnp.full(4, 1e30), "-1 jax": jnp.full(4, -1.0),
}  # fmt: skip


def finite(x) -> bool:
    """Whether all numbers in it are; bounds at infinity are none."""
    for leaf in jax.tree.leaves(x):
        if isinstance(leaf, float | np.ndarray | np.generic | jax.Array):
            if jnp.issubdtype(leaf.dtype if hasattr(leaf, "dtype") else float, jnp.inexact):
                x = np.asarray(leaf)  # of 10**9 numbers, whatever is as large takes seconds
                with np.errstate(invalid="ignore"):
                    ends = x.min(initial=0), x.max(initial=0)
                if not np.isfinite(ends).all():
                    return False
    return True


def outcome(function, arguments, use) -> str:
    """Empty if it is right or refused in one line, else what is wrong."""
    begin = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 8 * SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            result = function(**arguments)
            result = (result, None if use is None else use(result))
            jax.block_until_ready([x for x in jax.tree.leaves(result) if isinstance(x, jax.Array)])
            fault = "" if finite(result) else "not finite"
    except (ValueError, TypeError) as error:
        lines = str(error).strip().splitlines()
        internal = "equinox/" in str(error) or "jax/_src" in str(error)
        fault = "" if len(lines) == 1 and not internal else f"{len(lines)} lines: {lines[:1]}"
    except Exception as error:  # noqa: BLE001 - what may come is the question
        fault = f"{type(error).__name__}: {str(error).strip()[:120]!r}"
        if type(error).__name__ == "EquinoxRuntimeError" or "EqxRuntimeError" in fault:
            fault = ""  # checked at run time, as documented
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.process_time() - begin
    if not fault and seconds > SECONDS:
        fault = f"{seconds:.1f} s"
    return fault


def generated(seed: int, number: int):
    """So many calls, each with one argument replaced: of every name about as many."""
    draw = random.Random(seed)
    table = [(name, call) for name, call in calls() if call[1]]
    pairs = []
    while len(pairs) < number:
        draw.shuffle(table)
        pairs += [(name, call, draw.choice(list(call[1]))) for name, call in table]
    for name, (function, arguments, use), argument in pairs[:number]:
        value = draw.choice(list(VALUES))
        yield name, function, arguments, use, argument, value


def main(seed: int, number: int, only: str = "") -> int:
    resource.setrlimit(resource.RLIMIT_DATA, (8 * GIB, 8 * GIB))
    counted, faults = collections.Counter(), []
    pool = (
        generated(seed, number)
        if number
        else (
            (name, *call, argument, value)
            for name, call in calls()
            if only in name
            for argument in call[1]
            for value in VALUES
        )
    )
    for name, function, arguments, use, argument, value in pool:
        sys.stderr.write(f"{name} {argument}={value}\n")  # the last line names what crashed
        fault = outcome(function, {**arguments, argument: VALUES[value]}, use)
        counted[bool(fault)] += 1
        if fault:
            faults.append(f"{name}({argument}={value}): {fault}")
            print(faults[-1], flush=True)
    print(json.dumps({"calls": sum(counted.values()), "faults": len(faults)}))
    return len(faults)


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("hang")))
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
