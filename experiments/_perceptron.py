"""A perceptron of two arrays of synapses, trained in the arrays; many trainings side by side."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from experiments import _devices, _finite
from experiments._devices import EVERY, Synapses
from neurojax.data.sets import Dataset
from neurojax.weights import MakeWeights, Weights, normal
from neurojax.wiring.layouts import Dense

REACH = 10.0  # w_max sqrt(fan-in): trained numbers have less, but for one in a thousand
_NONLINEARITY = {"exponential": 2.0, "querlioz": 3.0}
HELD = {"reach": REACH, "nonlinearity": _NONLINEARITY, "refresh_every": EVERY}


class Program(NamedTuple):
    """What changes the compiled program: all else is a number in a `Setting`."""

    response: str
    policy: str
    hidden: int


class Setting(NamedTuple):
    """The numbers of one training, or of many: every field a number or [n]."""

    n_states: Any
    dynamic_range: Any  # G_max / G_min
    sigma_d2d: Any
    lr: Any
    upper: Any  # thresholds of refresh
    lower: Any
    seed: Any


class Outcome(NamedTuple):
    """What one training gave, or many: every field [n]."""

    val_accuracy: float | Array
    test_accuracy: float | Array
    n_pulses: float | Array  # while training, all devices together
    n_refresh: float | Array  # pairs
    energy: float | Array  # J, of programming
    time: float | Array  # s, of programming


def make_weights(program: Program, s: Setting, fan_in: int) -> MakeWeights:
    """Arrays of the program's devices, or plain numbers."""
    synapses = Synapses(
        program.response, program.policy, s.n_states, _NONLINEARITY.get(program.response),
        s.dynamic_range, s.sigma_d2d, upper=s.upper, lower=s.lower,
    )  # fmt: skip
    return _devices.make_weights(synapses, REACH / np.sqrt(fan_in))


class Perceptron(NamedTuple):
    """y = W2 relu(W1 x)."""

    first: Weights
    second: Weights

    @classmethod
    def fresh(cls, program: Program, s: Setting, n_in: int, n_out: int, key: Key[Array, ""]):
        """Gaussian weights, written into the arrays."""
        keys, wirings = jax.random.split(key, 4), _wirings(program, n_in, n_out)
        make = [make_weights(program, s, wiring.n_pre) for wiring in wirings]
        drawn = [normal(k, wiring, 1.0) for k, wiring in zip(keys, wirings, strict=False)]
        return cls(
            make[0](drawn[0], wirings[0], keys[2]), make[1](drawn[1], wirings[1], keys[3])
        )  # fmt: skip

    def __call__(self, x: Float[Array, "b i"]) -> tuple[Float[Array, "b h"], Float[Array, "b o"]]:
        """Hidden activity and output."""
        hidden = jax.nn.relu(jax.vmap(self.first.apply)(x))
        return hidden, jax.vmap(self.second.apply)(hidden)

    def trained(
        self, x: Float[Array, "b i"], target: Int[Array, " b"], lr: Array, key: Key[Array, ""]
    ) -> "Perceptron":
        """After one batch of gradient descent on the cross-entropy; W2^T is W2's own array."""
        hidden, y = self(x)
        error = (jax.nn.one_hot(target, y.shape[1]) - jax.nn.softmax(y)) / len(x)
        back = jnp.where(hidden > 0, jax.vmap(self.second.apply_t)(error), 0)
        keys = jax.random.split(key)
        return Perceptron(
            self.first.program(lr * self.first.outer(back, x), key=keys[0]),
            self.second.program(lr * self.second.outer(error, hidden), key=keys[1]),
        )


def _wirings(program: Program, n_in: int, n_out: int) -> tuple[Dense, Dense]:
    return Dense(n_in, program.hidden), Dense(program.hidden, n_out)


def use_cores(n: int) -> None:
    """Let JAX see `n` CPU devices; once it has begun, those that it has stay."""
    with suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", n)


class Lesson(NamedTuple):
    """Pictures [n, n_in] and classes of all three splits."""

    train: tuple[Array, Array]
    val: tuple[Array, Array]
    test: tuple[Array, Array]


def lesson(sets: Dataset, train_size: int | None = None) -> Lesson:
    """A data set as vectors; the first `train_size` training pictures."""
    flat = lambda s: (jnp.asarray(s.images).reshape(len(s.labels), -1), jnp.asarray(s.labels))  # noqa: E731
    x, y = flat(sets.train)
    return Lesson((x[:train_size], y[:train_size]), flat(sets.val), flat(sets.test))


def trained(
    program: Program, n_out: int, epochs: int, batch_size: int, data: Lesson, s: Setting
) -> Outcome:
    """One training from scratch, all chance from its seed; of one not finite, NaN right."""
    made, shuffled, pulsed = jax.random.split(jax.random.key(s.seed), 3)
    x, target = data.train
    start = Perceptron.fresh(program, s, x.shape[1], n_out, made)
    n_batches = len(target) // batch_size
    shuffle = lambda key: jax.random.permutation(key, len(target))[: n_batches * batch_size]  # noqa: E731
    order = jax.vmap(shuffle)(jax.random.split(shuffled, epochs)).reshape(-1, batch_size)

    def batch(net: Perceptron, now):
        i, picked = now
        key = jax.random.fold_in(pulsed, i)
        return net.trained(x[picked], target[picked], s.lr, key), None

    net = jax.lax.scan(batch, start, (jnp.arange(len(order)), order))[0]
    hits = lambda x, target: (net(x)[1].argmax(1) == target).mean()  # noqa: E731
    right = lambda *split: _finite.or_nan(hits(*split), net)  # noqa: E731
    now, before = (jax.tree.map(jnp.add, *map(_devices.spent, each)) for each in (net, start))
    return Outcome(right(*data.val), right(*data.test), *jax.tree.map(jnp.subtract, now, before))


@eqx.filter_jit
def many(
    program: Program, n_out: int, epochs: int, batch_size: int, data: Lesson, settings: Setting
) -> Outcome:
    """A training for each of the settings [n], spread over all devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("trainings",), (AxisType.Auto,))
    one = partial(trained, program, n_out, epochs, batch_size)
    apart, alike = PartitionSpec("trainings"), PartitionSpec()
    spread = jax.shard_map(
        jax.vmap(one, (None, 0)), mesh=mesh, in_specs=(alike, apart), out_specs=apart,
        check_vma=False,
    )  # fmt: skip
    return spread(data, settings)


def side_by_side(
    program: Program, n_out: int, epochs: int, batch_size: int, data: Lesson,
    settings: list[Setting], width: int,
) -> Iterator[list[Outcome]]:  # fmt: skip
    """Outcomes of all settings in their order, `width` of them on each device at a time.

    One compiled program serves all: a last group that is not full is filled up with its own
    last setting.
    """
    group = width * jax.device_count()
    for first in range(0, len(settings), group):
        now = settings[first : first + group]
        full = now + now[-1:] * (group - len(now))
        columns = Setting(*(jnp.asarray(column) for column in zip(*full, strict=True)))
        floats = Setting(*(x.astype(float) for x in columns))._replace(seed=columns.seed)
        outcome = many(program, n_out, epochs, batch_size, data, floats)
        outcome = jax.tree.map(np.asarray, outcome)
        yield [Outcome(*(float(x[i]) for x in outcome)) for i in range(len(now))]
