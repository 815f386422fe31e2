"""What to keep of a run: probes for `simulate`, and lists of spikes.

A probe is any function of {layer: Record}; these are the ones that most runs want. They are
models like all others: equal where their fields are, and they pickle.
"""

import operator
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from neurojax import _given
from neurojax._check import brief, kind, step_size
from neurojax.layers import Record

__all__ = ["SpikeList", "current", "outputs", "potential", "spike_list", "spikes"]


def __dir__() -> list[str]:
    return __all__


def outputs(records: dict[str, Record]) -> dict[str, Array]:
    """Each layer's output [n]: spikes, or the potential (mV) of a leaky integrator.

    The probe that `simulate` uses where it is given none.

    >>> probe = lambda records: nj.recording.outputs(records)["hidden"]  # of one layer alone
    """
    _given.mapping("records", records)
    for name, record in records.items():
        kind(f"record of layer {name!r}", record, Record)
    return {name: record.z for name, record in records.items()}


class spikes(eqx.Module):
    """Probe: whether each neuron of one layer spikes, [n] of bools, a quarter of the memory.

    Of a source that sends counts (`PoissonInput`) it keeps only whether there was a spike: for the
    counts keep `outputs`.

    Raises `ValueError` for a layer that the network does not have.

    >>> probe = nj.recording.spikes("hidden")
    """

    layer: str = eqx.field(static=True)

    def __call__(self, records: dict[str, Record]) -> Array:
        """The spikes of this step."""
        return _of(records, self.layer).z > 0


def _index(x: Any) -> Any:
    """As it can be compared: one whole number, or a tuple of them."""
    if x is None:
        return None
    try:
        return tuple(operator.index(i) for i in x) if np.ndim(x) else operator.index(x)
    except TypeError:
        raise TypeError(
            f"neuron must be a whole number, or a list of them; got {brief(x)}"
        ) from None


class potential(eqx.Module):
    """Probe: membrane potential (mV) of one layer [n], of one neuron [], or of some.

    `neuron` is a whole number, or a list, a range or an array of whole numbers.
    Raises `ValueError` for a layer that the network does not have, one whose neurons have no
    v, and an index that is out of the layer.

    >>> probe = nj.recording.potential("hidden", 3)
    """

    layer: str = eqx.field(static=True)
    neuron: Any = eqx.field(static=True, default=None, converter=_index)

    def __call__(self, records: dict[str, Record]) -> Array:
        """The potential after this step."""
        state = _of(records, self.layer).neuron
        if not hasattr(state, "v"):
            raise ValueError(f"layer {self.layer!r} has no potential v; its state is {state}")
        return _at(state.v, self.layer, self.neuron)


class current(eqx.Module):
    """Probe: the current (nA) that neurons of one layer hear, [n], [] of one, or of some.

    It is what the layer's synapse makes of the arrivals. `neuron` and errors as in `potential`.

    >>> probe = nj.recording.current("hidden", range(10))
    """

    layer: str = eqx.field(static=True)
    neuron: Any = eqx.field(static=True, default=None, converter=_index)

    def __call__(self, records: dict[str, Record]) -> Array:
        """The current of this step."""
        return _at(_of(records, self.layer).current, self.layer, self.neuron)


class SpikeList(NamedTuple):
    """Spikes one by one, in order of time, then neuron.

    Fields:
        times: float [spikes], ms; end of the step of each spike
        neurons: int [spikes]; which neuron fired
    """

    times: Float[np.ndarray, " spikes"]
    neurons: Int[np.ndarray, " spikes"]


def spike_list(z: Any, *, dt: float) -> SpikeList:
    """A raster `z` [T, n] as a list of spikes; step t ends at (t + 1) `dt` ms.

    Several spikes in a step, such as the 2 of a `PoissonInput`, are as many of the list; a signed
    spike, -1, is one.
    Raises `ValueError` for a raster of other than two axes or of what is no whole number, and a
    `dt` that is not positive.

    >>> z = jnp.zeros((10, 3)).at[4, 2].set(1)
    >>> nj.recording.spike_list(z, dt=0.5)
    SpikeList(times=array([2.5]), neurons=array([2]))
    """
    z, dt = np.asarray(z), float(step_size(dt))
    if z.ndim != 2:
        raise ValueError(f"z must have shape [T, n]; got {z.shape}: pass one layer of one sample")
    steps, neurons = np.nonzero(z)
    number = np.abs(np.asarray(z[steps, neurons], float))
    wrong = z[steps, neurons][number != np.rint(number)]
    if wrong.size:
        raise ValueError(
            f"z must be spikes, whole numbers; got {wrong[0]} ({wrong.size} of {z.size})"
        )
    steps, neurons = (np.repeat(x, number.astype(int)) for x in (steps, neurons))
    return SpikeList((steps + 1) * dt, neurons)


def _of(records: dict[str, Record], layer: str) -> Record:
    if layer not in records:
        raise ValueError(
            f"layer must be one of {sorted(records)}; got {layer!r}{_given.meant(layer, records)}"
        )
    return records[layer]


def _at(x: Array, layer: str, neuron: Any) -> Array:
    if neuron is None:
        return x
    beyond = [i for i in np.atleast_1d(neuron) if not -len(x) <= i < len(x)]
    if beyond:
        raise ValueError(
            f"neuron must be in [0, {len(x) - 1}], those of layer {layer!r}; got {beyond[0]}"
        )
    return x[np.asarray(neuron)]
