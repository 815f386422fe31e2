"""What linear kinetics do in a step, exact and safe where time constants meet.

Textbook forms are differences of exponentials, which cancel there, and so do their derivatives.
"""

import functools
import math

import jax.numpy as jnp


def held(dt, tau_mem, tau_syn):
    """Constant currents that act on the membrane as i and `rise`, 1 nA each, do over `dt`.

    With a = dt / tau_mem, b = dt / tau_syn and x = a - b they are, up to the charge
    1 - exp(-a) of a constant current, the means over the step u in [0, 1] of the membrane's
    memory exp(-a (1 - u)) times what flows, exp(-b u) and b u exp(-b u):

        a exp(-a) M_0(x),    a b exp(-a) M_1(x),    M_k(x) = integral of u^k exp(x u) du

    Without a membrane's memory, a = 0, they are the plain means.
    """
    b = dt / tau_syn
    if tau_mem is None:
        m_0, m_1 = moments(jnp.zeros_like(b), b)
        return m_0, b * m_1
    a = dt / tau_mem
    m_0, m_1 = moments(a, b)
    charge = -jnp.expm1(-a)
    return a * m_0 / charge, a * b * m_1 / charge


def moments(a, b):
    """exp(-a) M_0(a - b) and exp(-a) M_1(a - b), tied by M_0 = exp(x) - x M_1 (by parts).

    The closed forms cancel where a and b are close, and so do their derivatives: there
    M_1 is a series. Beyond |x| = 1 they lose no digits, and never overflow.
    """
    x, memory, flow = a - b, jnp.exp(-a), jnp.exp(-b)
    near = jnp.abs(x) < 1
    inside, outside = jnp.where(near, x, 0), jnp.where(near, 1, x)
    m_1 = memory * _series(inside)
    far_0 = (flow - memory) / outside
    far_1 = (flow - far_0) / outside
    return jnp.where(near, flow - inside * m_1, far_0), jnp.where(near, m_1, far_1)


def _series(x):
    """M_1(x) = sum over j of x^j / (j! (j + 2)); 18 terms are exact to float64 for |x| <= 1."""
    terms = [1 / (math.factorial(j) * (j + 2)) for j in range(18)]
    return functools.reduce(lambda total, term: total * x + term, reversed(terms))


def held_of_two(dt, tau_mem, tau_decay, tau_rise):
    """As `held`, of a current that decays by itself and of a `rise` that feeds it.

    Of the latter 1 - exp(-a) is divided out of a b [-a, -c, -b], where c = dt / tau_decay,
    b = dt / tau_rise and [x, y, z] is the divided difference of exp: its convolution, over the
    step, with what decays and what the membrane remembers.
    """
    own, _ = held(dt, tau_mem, tau_decay)
    b, c = dt / tau_rise, dt / tau_decay
    if tau_mem is None:
        return own, b * _divided(jnp.zeros_like(b), -c, -b)
    a = dt / tau_mem
    return own, a * b * _divided(-a, -c, -b) / -jnp.expm1(-a)


def _divided(*nodes):
    """Second divided difference of exp at three nodes, to all digits, wherever they lie.

    It is symmetric. Within 1 of each other, exp(mean) times the sum over k of h_k / (k + 2)!,
    with h_k the complete homogeneous symmetric polynomials of what they differ by from the mean;
    farther apart, by the definition.
    """
    low, mid, high = jnp.sort(jnp.stack(jnp.broadcast_arrays(*nodes)), axis=0)
    near = high - low < 1
    mean = (low + mid + high) / 3
    far = (_first(mid, high) - _first(low, mid)) / jnp.where(near, 1, high - low)
    y = [jnp.where(near, x - mean, 0) for x in (low, mid, high)]
    return jnp.where(near, jnp.exp(mean) * _symmetric(*y), far)


def _first(x, y):
    """First divided difference of exp, for x <= y."""
    return moments(-x, -y)[0]


def _symmetric(x, y, z):
    """Sum over k of h_k / (k + 2)! for x + y + z = 0; 17 terms are exact to float64 within 1."""
    two, three = x * y + y * z + z * x, x * y * z
    h = [jnp.ones_like(x), jnp.zeros_like(x), -two]
    while len(h) < 17:
        h.append(three * h[-3] - two * h[-2])
    return sum(each * (1 / math.factorial(k + 2)) for k, each in reversed(list(enumerate(h))))


def time_to_peak(tau_rise, tau_decay):
    """In units of tau_decay: ln(r) / (r - 1) with r = tau_decay / tau_rise, 1 where r is 1.

    With y = (r - 1) / (r + 1) that is (1 - y) artanh(y) / y, a series where y is small.
    """
    y = (tau_decay - tau_rise) / (tau_decay + tau_rise)
    near = jnp.abs(y) < 0.3
    square, ratio = jnp.where(near, y, 0) ** 2, jnp.where(near, 2.0, tau_decay / tau_rise)
    terms = [1 / (2 * j + 1) for j in range(16)]
    series = functools.reduce(lambda total, term: total * square + term, reversed(terms))
    return jnp.where(near, (1 - y) * series, jnp.log(ratio) / (ratio - 1))
