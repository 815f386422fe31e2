"""The broadcast learning system in plain NumPy: one sample, one neuron, one synapse at a time.

Written from the equations in double precision. It takes nothing but numbers from the system
that it is given; no step of the package runs here.
"""

from typing import NamedTuple

import numpy as np
from oracles import connectivity as wiring

from neurojax.neurons.leaky import ALIF, LeakyIntegrator
from neurojax.plasticity.teaching import SoftWTA
from neurojax.plasticity.three_factor import always, post_spike, triangle


def weight_change(pre, h, z, q, exists, *, kappa_e, decay, reset_trace, rho=0.0, beta=0.0):
    """sum_t q_i,t e_ij,t of each synapse that exists, as it is written; all [T, n].

    x_t = lambda_t x_{t-1} + pre_t       e_t = kappa_e e_{t-1} + h_t (x_t - beta a_t)
    a_{t+1} = rho a_t + h_t (x_t - beta a_t)                 Bellec et al. (2020), eqs. 24-25
    """
    n_steps, n_post = q.shape
    decay, rho, beta = (np.broadcast_to(np.float64(x), n_post) for x in (decay, rho, beta))
    dw = np.zeros((n_post, pre.shape[1]))
    for i, j in np.argwhere(exists):
        x = a = e = kept = 0.0
        for t in range(n_steps):
            x = kept * x + pre[t, j]
            local = h[t, i] * (x - beta[i] * a)
            a = rho[i] * a + local
            e = kappa_e * e + local
            dw[i, j] += q[t, i] * e
            kept = decay[i] * (1 - z[t, i]) if reset_trace else decay[i]
    return dw


class Trace(NamedTuple):
    """What one sample did, lists over time by layer."""

    sent: dict  # output
    h: dict  # plasticity window
    q: dict  # gate x learning signal
    error: list
    scores: list


def deltas(system, weights, tone, x, target):
    """Change of each plastic weight for one sample, [n_post, n_pre], and its mean scores."""
    net, n_steps = system.network, system.n_steps
    x = np.asarray(x, np.float64)
    trace = simulate(system, weights, tone, x, target)
    dw = {}
    for name, p in net.projections.items():
        if not p.plastic:
            continue
        post, rule = net.layers[p.post], net.layers[p.post].rule
        sent = np.array(trace.sent[p.pre]) if p.pre in net.layers else at_all(x, n_steps)
        arrived = np.concatenate([np.zeros((p.delay, sent.shape[1])), sent])[:n_steps]
        rows, columns, count = wiring.synapses(p.connectivity)
        exists = np.zeros((p.connectivity.n_post, p.connectivity.n_pre), bool)
        exists[rows[count > 0], columns[count > 0]] = True
        decay = membrane(system, post.neuron) if rule.decay is None else number(rule.decay)
        slow = {}
        if isinstance(post.neuron, ALIF):
            slow["rho"] = np.exp(-system.dt / number(post.neuron.tau_adapt))
            slow["beta"] = number(post.neuron.beta_adapt)
        h, z, q = (np.array(part[p.post]) for part in (trace.h, trace.sent, trace.q))
        dw[name] = weight_change(
            arrived, h, z, q, exists, kappa_e=number(rule.kappa_e), decay=decay,
            reset_trace=rule.reset_trace, **slow,
        )  # fmt: skip
    return dw, np.mean(trace.scores[system.start :], axis=0)


def number(x):
    return np.asarray(x, np.float64)


def at_all(x, n_steps):
    return np.tile(x, (n_steps, 1)) if x.ndim == 1 else x


def membrane(system, neuron):
    return np.exp(-system.dt / number(neuron.tau_mem))


def simulate(system, weights, tone, x, target):
    net, layers = system.network, system.network.layers
    matrices = {n: wiring.matrix(w.connectivity, np.asarray(w.w)) for n, w in weights.items()}
    v, z, a = ({n: np.zeros(layer.n) for n, layer in layers.items()} for _ in range(3))
    trace = Trace({n: [] for n in layers}, {n: [] for n in layers}, {n: [] for n in layers}, [], [])
    x, teacher = at_all(x, system.n_steps), Teacher(system, tone, target)
    for t in range(system.n_steps):
        for name in depth_first(net):
            current = np.zeros(layers[name].n)
            for link, p in net.projections.items():
                if p.post == name and t >= p.delay:
                    sent = trace.sent[p.pre][t - p.delay] if p.pre in layers else x[t]
                    current += matrices[link] @ sent
            v_th = number(tone[name].v_th) if name in tone else None
            v[name], z[name], a[name], theta = neuron_step(
                layers[name].neuron, v[name], z[name], a[name], current, v_th, system.dt
            )
            trace.sent[name].append(v[name] if theta is None else z[name])
            trace.h[name].append(window(layers[name].rule.window, v[name], theta, z[name]))
        teacher.step(t, trace)
    return trace


def depth_first(net):
    """Layers after all those that they hear without delay."""
    done = []
    while len(done) < len(net.layers):
        for name in net.layers:
            heard = {p.pre for p in net.projections.values() if p.post == name and p.delay == 0}
            if name not in done and heard & set(net.layers) <= set(done):
                done.append(name)
    return done


def neuron_step(p, v, z, a, current, v_th, dt):
    """v, z, a after the step, and the threshold that they met; None for leaky integrators."""
    alpha = np.exp(-dt / number(p.tau_mem))
    if isinstance(p, LeakyIntegrator):
        return alpha * v + (1 - alpha) * number(p.r_mem) * current, z, a, None
    v_th, rest, v_reset = number(p.v_th) if v_th is None else v_th, p.v_rest, number(p.v_reset)
    v = v - (v_th - v_reset) * z if p.reset == "subtract" else np.where(z > 0, v_reset, v)
    v = alpha * v + (1 - alpha) * (number(rest) + number(p.r_mem) * current)
    theta = v_th
    if isinstance(p, ALIF):
        a = np.exp(-dt / number(p.tau_adapt)) * a + z
        theta = v_th + number(p.beta_adapt) * a
    return v, (v >= theta).astype(float), a, theta


def window(kind, v, theta, z):
    if kind == always:
        return np.ones_like(v)
    if kind == post_spike:
        return z
    assert (type(kind), float(kind.width)) == (triangle, 1), "the oracle knows no other window"
    return np.maximum(0, 1 - np.abs(v - theta))


class Teacher:
    """Readout, error, modulators and what each neuron hears of them, step by step."""

    def __init__(self, system, tone, target):
        self.system, self.tone, self.target = system, tone, target
        self.scores = np.zeros(system.n_classes)
        if system.modulators is not None:
            self.m = np.full(system.modulators.k.shape[0], 0.5)
            self.usual = np.zeros(system.n_classes)

    def step(self, t, trace):
        system, readout = self.system, self.system.network.layers[self.system.readout]
        now = trace.sent[system.readout][t].reshape(system.n_classes, -1).mean(1)
        if isinstance(readout.neuron, LeakyIntegrator):
            self.scores = now
        else:
            kappa = membrane(system, readout.neuron)
            self.scores = kappa * self.scores + (1 - kappa) * now
        error = self.error() if t >= system.start else np.zeros(system.n_classes)
        gate = self.gate()
        for name in system.hidden:
            b = system.feedback[name]
            signal = number(b.spread) @ number(b.channels) @ error
            penalty, target = system.homeostasis.penalty, system.homeostasis.target
            signal = signal - number(penalty) * (number(self.tone[name].r) - number(target))
            trace.q[name].append(gate[name] * signal)
        trace.q[system.readout].append(np.repeat(error, readout.n // system.n_classes))
        trace.error.append(error)
        trace.scores.append(self.scores)

    def error(self):
        s, n, teacher = self.scores, len(self.scores), self.system.teacher
        wanted = np.eye(n)[self.target]
        if isinstance(teacher, SoftWTA):
            error = wanted - softmax(number(teacher.gain) * s)
            return error if np.abs(error).max() > number(teacher.margin) else np.zeros(n)
        rival = max((c for c in range(n) if c != self.target), key=lambda c: s[c])
        lead = s[self.target] - s[rival]
        return np.zeros(n) if lead > number(teacher.margin) else wanted - np.eye(n)[rival]

    def gate(self):
        p, s = self.system.modulators, self.scores
        if p is None:
            return dict.fromkeys(self.system.hidden, 1.0)
        belief = softmax(number(p.gain) * s)
        entropy = -np.sum(belief * np.log(belief)) / np.log(len(s))
        novelty = np.linalg.norm(s - self.usual) / (np.linalg.norm(self.usual) + 1)
        drive = number(p.k) @ [1 - belief[self.target], entropy, novelty]
        rho_m, rho_s = number(p.rho_m), number(p.rho_s)
        self.m = rho_m * self.m + (1 - rho_m) / (1 + np.exp(-drive))
        self.usual = rho_s * self.usual + (1 - rho_s) * s
        return {name: 2 * number(p.a[name]) @ self.m for name in self.system.hidden}


def softmax(x):
    p = np.exp(x - x.max())
    return p / p.sum()
