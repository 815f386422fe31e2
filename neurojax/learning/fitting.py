"""The loop around a learner: shuffled batches, epochs, validation, checkpoints, a log."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from neurojax import checkpoint
from neurojax._batches import alike, along_data, batched
from neurojax._check import brief, classes, count, flag, instance, prng_key, real
from neurojax._compile import compiled, compiling, released
from neurojax._draw import fold, permutation
from neurojax._files import located, write_whole
from neurojax._fingerprint import fingerprint
from neurojax.data.ragged import Rasters, all_finite, arrays, lasting, loaded, on_disk
from neurojax.data.sets import Dataset, Split
from neurojax.learning._spiking import lengths
from neurojax.learning.learner import Learner, accuracy
from neurojax.sharding import replicated
from neurojax.weights import MakeWeights, ideal

__all__ = ["Fitted", "NotFinite", "evaluate", "fit"]

Change = Callable[[Array, Any], Any]  # (key, x [batch, ...]) -> x
Hook = Callable[[int, dict[str, float]], Any]
Data = tuple[ArrayLike | Rasters, ArrayLike] | Split | Dataset
_AT_ONCE = 500  # samples of an evaluation
_IN_MEMORY = 64 << 20  # bytes that are read at once of what lies on disk
SETTLING = 30  # batches that a learner with `settle` sees before it learns


class Fitted(NamedTuple):
    """What `fit` gives back.

    Fields:
        state: any; that of the learner, of the best epoch where `patience` was asked for
        history: dict[str, float [epochs]]; means over each epoch's batches of what `step` tells
            (accuracy a number of samples, exact), `val_accuracy`, and `seconds`, which wall clocks
            measure
    """

    state: Any
    history: Mapping[str, Array | np.ndarray]


class NotFinite(FloatingPointError):
    """A training that is not finite any more; `parts` of the state are, since the epoch named.

    Fields:
        parts: list of str; names in the state
        since: str
        state: any; the last that was finite
    """

    def __init__(self, parts: list[str], since: str, cure: str = "", state: Any = None):
        self.parts, self.since, self.state = parts, since, state
        few = ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")
        super().__init__(f"{few} must stay finite; got NaN or infinity {since}{cure}")


def fit(
    learner: Learner,
    data: Data,
    *,
    key: Key[Array, ""],
    epochs: int,
    batch_size: int = 64,
    make_weights: MakeWeights = ideal(),
    state: Any = None,
    val: tuple[ArrayLike | Rasters, ArrayLike] | Split | None = None,
    augment: Change | None = None,
    encode: Change | None = None,
    patience: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    log: str | os.PathLike[str] | None = None,
    hook: Hook | None = None,
    progress: bool = True,
    mesh: Mesh | None = None,
) -> Fitted:
    """Let `learner` learn from `data`: (x, y), or a data set with its validation pictures.

    `x` is [N, ...] or [N, T, n], whatever the learner takes of it, or `data.Rasters` of samples
    over time that are not equally long; `y` [N] are labels. Pictures of a data set are flattened.
    An `x` that is an `np.memmap`, or `Rasters` of one, stays on disk: some 64 MB are read at a
    time, and what is learned is the same, bit for bit. In each epoch the samples are shuffled into
    batches of `batch_size`; what is left over waits for the next shuffle. `augment(key, x)` changes
    training batches, `encode(key, x)` then all that the learner sees; both take a batch. `val`
    is evaluated after each epoch; with `patience`, training stops after as many epochs without a
    better one, and the state of the best is what comes back.

    It goes on from `state`, or begins with `learner.init(key, make_weights)`. With a `folder`, a
    checkpoint is written after each epoch, and the same call goes on from the last one, bit for
    bit as if nothing had come between; `epochs` may then be more than before, and a call whose
    data, learner or functions are others is refused. `log` is a file of
    one JSON object an epoch, `hook(epoch, measures)` is told the same: such as

        hook=lambda epoch, seen: [writer.add_scalar(k, x, epoch) for k, x in seen.items()]

    for TensorBoard. Over a `mesh` (`nj.sharding.mesh(data=8)`) the samples of a batch are divided
    along its axis "data": what is drawn is the same as on one device, and what a batch adds up
    differs in its last digit, as the order of the sum does. A folder knows no mesh.

    All that is random follows from `key`. Under `vmap` or `jit`, over keys or settings, it is one
    compiled loop without progress, and `history` is traced as well.

    Raises `ValueError` and `TypeError` for data that do not fit one another or the learner, and
    for options that make no sense together; `NotFinite`, with the last finite state, after an
    epoch in which something became NaN or infinite.

    >>> import optax
    >>> x, y = jnp.eye(3).repeat(20, 0), jnp.arange(3).repeat(20)
    >>> net = nj.learning.Perceptron((3, 8, 3), nj.learning.DFA(), optax.sgd(0.5))
    >>> key = jax.random.key(0)
    >>> fitted = nj.fit(net, (x, y), key=key, epochs=30, batch_size=20, progress=False)
    >>> nj.evaluate(net, fitted.state, (x, y))
    1.0
    """
    learner = instance("learner", learner, "init", "step", "predict")
    progress = flag("progress")(progress)
    key, epochs, batch_size = (
        prng_key(key),
        count("epochs")(epochs),
        count("batch_size")(batch_size),
    )
    train, val, encode = _given(data, val, encode)
    _refuse_short(learner, train, val)
    if len(train[1]) < batch_size:
        raise ValueError(f"batch_size must be at most {len(train[1])} samples; got {batch_size}")
    mesh = along_data(mesh, batch_size)
    if patience is not None:
        patience = count("patience")(patience)
        if val is None:
            raise ValueError("patience needs validation samples; pass val=(x, y)")
    plan = _Plan(learner, train, val, key, epochs, batch_size, augment, encode, mesh)
    fresh = partial(learner.init, fold(key, "state"), make_weights)
    labelled = {"data": train} | ({} if val is None else {"val": val})
    own = jax.eval_shape(fresh) if state is None else _own(learner, state)
    _refuse_labels(learner, own, encode, labelled)
    traced = any(isinstance(x, Tracer) for x in jax.tree.leaves((learner, data, key, state, val)))
    if not traced:
        if folder is not None and state is not None:
            raise ValueError("state and folder: pass one of them, as the folder holds a state")
        try:
            diary = _Diary(plan, folder, log, hook, patience, make_weights)
            return _run(plan, diary, fresh, state, progress)
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
            pass  # what is mapped hides in a function, as a learning rate does in `tx`
    if not (patience is folder is log is hook is mesh is None):
        raise ValueError("patience, folder, log, hook and mesh must be None under jit and vmap")
    return _traced(plan, fresh, state)


def evaluate(
    learner: Learner, state: Any, data: tuple[ArrayLike | Rasters, ArrayLike] | Split, *,
    encode: Change | None = None, key: Key[Array, ""] | None = None, mesh: Mesh | None = None,
) -> float | Float[Array, ""]:  # fmt: skip
    """Part of the samples (x, y) whose label has the largest score; 500 at a time.

    Pictures of a `Split` are flattened. `encode` as in `fit`; each such object is compiled once,
    so hand over one function again rather than a new closure or partial. Noise of reading, and
    of encoding, is drawn from `key`: of sample block i, from fold_in(key, 500 i). Over a `mesh`
    each block is divided along its axis "data", where that divides it. A float, or
    traced as is the state. Raises `ValueError` for no samples at all, and as `fit` does.
    """
    learner = instance("learner", learner, "init", "step", "predict")
    if isinstance(data, Dataset):
        raise TypeError("data must be (x, y) or a Split; got Dataset: pass data.val or data.test")
    (x, y), _, encode = _given(data, None, encode)
    _refuse_short(learner, (x, y))
    _refuse_labels(learner, _own(learner, state), encode, {"data": (x, y)})
    key, mesh = prng_key(key) if key is not None else None, along_data(mesh, 0)
    found = _right(_evaluate, learner, mesh)(_own(learner, state), x, y, key, encode)
    return (found if isinstance(found, Tracer) else float(found)) / len(y)


# --- what is given ---


class _Plan(NamedTuple):
    learner: Learner
    train: tuple[Any, Any]
    val: tuple[Any, Any] | None
    key: Array
    epochs: int
    batch_size: int
    augment: Change | None
    encode: Change | None
    mesh: Mesh | None

    @property
    def n_batches(self) -> int:
        return len(self.train[1]) // self.batch_size

    def over_mesh(self) -> "_Plan":
        """With samples in memory on every device, where there are several."""
        over = lambda x: x if x is None or on_disk(x[0]) else _over(self.mesh, x)  # noqa: E731
        return self._replace(train=over(self.train), val=over(self.val))


def _over(mesh: Mesh | None, tree: Any) -> Any:
    """Whole on every device."""
    return tree if mesh is None else replicated(mesh, tree)


def _flattened(key: Array | None, x: Any) -> Any:
    return x if isinstance(x, Rasters) else x.reshape(len(x), -1)


def _given(data: Any, val: Any, encode: Change | None):
    """Arrays to learn from and to validate with, and what makes inputs of them."""
    if isinstance(data, Dataset):
        data, val = data.train, data.val if val is None else val
    if isinstance(data, Split) and encode is None:
        encode = _flattened
    return _pair("data", data), None if val is None else _pair("val", val), encode


def _pair(name: str, pair: Any) -> tuple[Any, Any]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{name} must be (x, y) or a data set; got {type(pair).__name__}")
    x, y = pair
    if getattr(x, "dtype", None) == np.uint8 and not isinstance(x, Rasters):
        raise TypeError(
            f"x of {name} must be floats; got uint8: pass x / 255, or nj.data.Rasters(x) of counts"
        )
    if np.ndim(y) != 1:
        cure = ": pass y.argmax(1)" if np.ndim(y) == 2 else ""
        raise ValueError(f"y of {name} must be [N] labels; got {list(np.shape(y))}{cure}")
    if np.ndim(x) < 2 or np.shape(x)[0] != np.shape(y)[0] or 0 in np.shape(x):
        got = f"{list(np.shape(x))} and {list(np.shape(y))}"
        raise ValueError(f"x and y of {name} must be [N, ...] and [N], without a 0; got {got}")
    if not isinstance(lasting(x)[0], Tracer) and not all_finite(x if on_disk(x) else _numbers(x)):
        raise ValueError(f"x of {name} must be finite; got NaN or infinity")
    if on_disk(x):
        if compiling():
            raise ValueError(f"x of {name} must be in memory under jit and vmap; got a np.memmap")
        return x, np.asarray(y)
    if isinstance(x, Rasters):
        return jax.tree.map(jnp.asarray, x), jnp.asarray(y)
    return real(x, f"x of {name}"), jnp.asarray(y)


def _refuse_short(learner: Any, *data: Any) -> None:
    """Refuse samples that end before any step counts, and a learner that counts no steps."""
    for x, _ in (pair for pair in data if pair is not None):
        ends, start = lasting(x)[1], getattr(getattr(learner, "system", learner), "start", None)
        if ends is not None and start is None:
            raise TypeError(
                f"{type(learner).__name__} must have a step from which scores count (start) to take"
                f" samples over time; got {x}: pass an array, such as x.sum(1) of its x"
            )
        if start is not None and not isinstance(ends, Tracer):
            lengths(x, start)


def _numbers(x: Any) -> np.ndarray:
    return np.asarray(lasting(x)[0])


def _own(learner: Learner, state: Any) -> Any:
    """The state, refused unless it is of the kind that `learner.init` makes, by name."""
    made = jax.eval_shape(learner.init, jax.random.key(0))
    if hasattr(made, "_fields") and type(state) is not type(made):
        raise TypeError(
            f"state must be what learner.init makes, a {type(made).__name__}; got {brief(state)}"
        )
    return state


def _refuse_labels(
    learner: Learner, state: Any, encode: Change | None, labelled: dict[str, tuple[Any, Any]]
) -> None:
    """Labels must be classes of the learner."""
    few, key = jax.tree.map(lambda a: a[:1], labelled["data"][0]), jax.random.key(0)
    shown = jax.eval_shape(partial(_encoded, encode), few, key)
    scores = jax.eval_shape(lambda s, x: learner.predict(s, x, key=key), state, shown)
    for name, (_, y) in labelled.items():
        classes(f"y of {name}", y, scores.shape[-1])


def _encoded(encode: Change | None, x: Any, key: Array | None) -> Any:
    return x if encode is None else encode(key, x)  # pyright: ignore[reportArgumentType]


# --- the loop ---


def stretch(
    learner: Learner, state: Any, x: Any, y: Array, order: Array, key: Array, ends: Array,
    augment: Change | None = None, encode: Change | None = None, mesh: Mesh | None = None,
) -> tuple[Any, dict[str, Array]]:  # fmt: skip
    """Batches ends[0] to ends[1] - 1 of an epoch, and what each showed, [batches], others 0.

    `order` [batches, batch] says which samples; batch i draws from fold_in(key, i). Each is
    divided over the `mesh`, the state is whole on every device.
    """

    @partial(jax.jit, inline=True)  # traced once, for its shapes and for the loop
    def batch(state: Any, i: Array) -> tuple[Any, dict[str, Array]]:
        picked, at = order[i], jax.random.fold_in(key, i)
        now = batched(mesh, x[picked])
        now = now if augment is None else augment(fold(at, "perturb"), now)
        now = batched(mesh, _encoded(encode, now, fold(at, "encode")))
        return alike(mesh, learner.step(state, now, y[picked], key=at))

    def one(i: Array, carry: tuple[Any, dict[str, Array]]):
        state, info = batch(carry[0], i)
        return state, jax.tree.map(lambda seen, x: seen.at[i].set(x), carry[1], info)

    shape = jax.eval_shape(batch, state, ends[0])[1]
    none = jax.tree.map(lambda a: jnp.zeros((len(order), *a.shape), a.dtype), shape)
    return jax.lax.fori_loop(ends[0], ends[1], one, (state, none))


def shuffled(key: Array, n: int, batch_size: int) -> Array:
    """Order of an epoch, [batches, batch]; `key` is that of the epoch."""
    n_batches = n // batch_size
    order = permutation(fold(key, "order"), n)
    return order[: n_batches * batch_size].reshape(n_batches, batch_size)


def epoch_key(key: Array, epoch: int | Array) -> Array:
    """All that is random in `epoch`, from 0, is drawn from it."""
    return jax.random.fold_in(fold(key, "epoch"), epoch)


def _correct(learner, state, x, y, key, encode, before: Any = 0, mesh: Any = None) -> Array:
    """How many samples are right, in blocks that are one program; `before` have come before."""
    first = len(y) - len(y) % _AT_ONCE

    def right(x, y, i):
        at = None if key is None else jax.random.fold_in(key, i)
        shown = batched(mesh, _encoded(encode, batched(mesh, x), at))
        return alike(mesh, accuracy(learner.predict(state, shown, key=at), y) * len(y))

    total = jnp.zeros(())
    if first:
        some = lambda a: a[:first].reshape(-1, _AT_ONCE, *a.shape[1:])  # noqa: E731
        blocks = jax.tree.map(some, (x, y))
        starts = before + jnp.arange(0, first, _AT_ONCE)
        total = jax.lax.map(lambda now: right(*now), (*blocks, starts)).sum()
    if first < len(y):
        total = total + right(x[first:], y[first:], before + first)
    return total


_evaluate = compiled(_correct)


def _right(count: Callable, learner: Learner, mesh: Mesh | None) -> Callable:
    """`count`, a compiled `_correct`, of samples that may lie on disk and are read by the block."""

    def right(state: Any, x: Any, y: Any, key: Array | None, encode: Change | None) -> Any:
        if not on_disk(x):
            return count(learner, state, x, y, key, encode, 0, mesh)
        starts = range(0, len(y), _AT_ONCE)
        blocks = ((loaded(x, slice(i, i + _AT_ONCE)), y[i : i + _AT_ONCE], i) for i in starts)
        each = (
            count(learner, state, x, y, key, encode, jnp.asarray(i), mesh) for x, y, i in blocks
        )
        return sum(each)

    return right


def served(learn: Callable) -> Callable:
    """`stretch` of a learner, compiled, of samples that may lie on disk: read as they are needed.

    Whichever part of an epoch is in memory, batch i is the same and draws from the same key.
    """

    def learnt(state, x, y, order, key, ends, **changes):
        if not on_disk(x):
            return learn(state, x=x, y=y, order=order, key=key, ends=ends, **changes)
        order, (first, last) = np.asarray(order), (int(i) for i in ends)
        n_batches, size = order.shape
        each = lasting(x)[0][:1].nbytes * size
        at_once = max(1, min(n_batches, _IN_MEMORY // max(1, each)))
        total = None
        for i in range(first, last, at_once):
            rows = order[np.arange(i, i + at_once) % n_batches].ravel()
            here = np.zeros_like(order)  # of these rows
            there = here[i : i + at_once]
            there[:] = np.arange(there.size).reshape(there.shape)
            now = jnp.asarray([i, min(i + at_once, last)])
            state, sums = learn(
                state, x=loaded(x, rows), y=y[rows], order=here, key=key, ends=now, **changes
            )
            total = sums if total is None else jax.tree.map(jnp.add, total, sums)
        return state, total

    return learnt


def beginning(learner: Any, x: Any, batch_size: int) -> Any:
    """As much of `x`, as JAX holds it, as settling sees; all of it where it is in memory."""
    seen = SETTLING * batch_size if hasattr(learner, "settle") else 1
    return arrays(loaded(x, slice(seen)) if on_disk(x) else x)


def settled(learner: Any, state: Any, x: Any, key: Array, batch_size: int, encode: Any) -> Any:
    """The state after some batches of inputs alone; as it was if the learner needs none."""
    if not hasattr(learner, "settle"):
        return state

    def one(state: Any, i: Array) -> tuple[Any, None]:
        at = fold(jax.random.fold_in(key, i), "settle")
        picked = (i * batch_size + jnp.arange(batch_size)) % len(x)
        return learner.settle(state, _encoded(encode, x[picked], at), key=at), None

    return jax.lax.scan(one, state, jnp.arange(SETTLING))[0]


def _begun(plan: _Plan, fresh: Callable[[], Any], x: Any) -> Any:
    """A state from nothing, settled on `x`."""
    return settled(plan.learner, fresh(), x, plan.key, plan.batch_size, plan.encode)


def _traced(plan: _Plan, fresh: Callable[[], Any], state: Any) -> Fitted:
    """All epochs as one loop, to be mapped and compiled."""
    state = _begun(plan, fresh, plan.train[0]) if state is None else state

    def epoch(state: Any, number: Array):
        key = epoch_key(plan.key, number)
        order = shuffled(key, len(plan.train[1]), plan.batch_size)
        ends = jnp.array([0, plan.n_batches])
        state, each = stretch(
            plan.learner, state, *plan.train, order, key, ends, plan.augment, plan.encode
        )
        seen = {name: x.mean(0) for name, x in each.items()}
        if plan.val is not None:
            at = fold(plan.key, "val")
            right = _correct(plan.learner, state, *plan.val, at, plan.encode)
            seen["val_accuracy"] = right / len(plan.val[1])
        return state, seen

    return Fitted(*jax.lax.scan(epoch, state, jnp.arange(plan.epochs)))


def _run(
    plan: _Plan, diary: "_Diary", fresh: Callable[[], Any], state: Any, progress: bool
) -> Fitted:
    from neurojax.learning._progress import Progress  # rich is slow to import

    learn = served(released(partial(stretch, plan.learner, mesh=plan.mesh)))
    test = _right(released(_correct), plan.learner, plan.mesh)
    kept = diary.restored(jax.eval_shape(fresh))
    if kept is None:
        begin = released(partial(_begun, plan, fresh))
        first = beginning(plan.learner, plan.train[0], plan.batch_size)
        state = begin(first) if state is None else state
        _refuse_lost(state, "before the first batch", state)
        kept = _Kept(state, state, 0)
    plan, (state, best) = plan.over_mesh(), _over(plan.mesh, (kept.state, kept.best))
    kept = _Kept(state, best, kept.epoch)
    bar = Progress(plan.epochs, plan.n_batches, kept.epoch, quiet=not progress)
    with bar:
        while kept.epoch < plan.epochs and not diary.enough():
            state = _epoch(plan, learn, kept, bar)
            _refuse_lost(state, f"in epoch {kept.epoch + 1}", kept.state)
            val = None
            if plan.val is not None:
                right = test(state, *plan.val, fold(plan.key, "val"), plan.encode)
                val = float(right) / len(plan.val[1])
            kept = diary.written(kept, state, _means(plan, bar), val, bar.seconds())
            bar.finish_epoch(val)
    best = kept.state if diary.patience is None else kept.best
    return Fitted(best, {name: np.array(x) for name, x in diary.history.items()})


class _Kept(NamedTuple):
    """What a checkpoint of `fit` holds: the last state, the best one, and after how many epochs."""

    state: Any
    best: Any
    epoch: int


def _epoch(plan: _Plan, learn: Callable, kept: _Kept, bar: Any) -> Any:
    key = epoch_key(plan.key, kept.epoch)
    order = shuffled(key, len(plan.train[1]), plan.batch_size)
    state = kept.state
    for first, last in bar.stretches():
        ends = jnp.asarray([first, last])  # traced: one program for all stretches
        state, seen = learn(
            state, *plan.train, order, key, ends, augment=plan.augment, encode=plan.encode
        )
        bar.show(last - first, seen)
    return state


def _means(plan: _Plan, bar: Any) -> dict[str, float]:
    """Of an epoch's batches; accuracy is a number of samples, so that no rounding is in it."""
    n = plan.n_batches * plan.batch_size
    return {k: counted(x, n) if k == "accuracy" else x for k, x in bar.means.items()}


def counted(part: float, n: int) -> float:
    """Part of `n` samples, without the rounding of sums."""
    return round(part * n) / n


def _refuse_lost(state: Any, since: str, last: Any) -> None:
    parts = lost(state)
    if parts:
        raise NotFinite(parts, since, "; pass a smaller learning rate", last)


def lost(state: Any) -> list[str]:
    """Names of the arrays of a state that are not finite."""
    found = jax.tree_util.tree_flatten_with_path(state)[0]
    numbers = [(path, x) for path, x in found if eqx.is_inexact_array(x)]
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, x in numbers
        if not np.isfinite(np.asarray(x, np.float64)).all()
    ]


def finite(state: Any) -> Array:
    """Whether every number of a state is, traced as it is."""
    numbers = [x for x in jax.tree.leaves(state) if eqx.is_inexact_array(x)]
    return jnp.stack([jnp.isfinite(x).all() for x in numbers]).all()


# --- what is kept ---


class _Diary:
    """History, log and checkpoints of one call of `fit`."""

    def __init__(
        self, plan: _Plan, folder: Any, log: Any, hook: Hook | None, patience: int | None,
        make_weights: MakeWeights,
    ):  # fmt: skip
        self.folder: Path | None = None if folder is None else located("folder", folder)
        self.log: Path | None = None if log is None else located("log", log)
        self.hook, self.patience, self.epochs = hook, patience, plan.epochs
        self.history: dict[str, list[float]] = {}
        self.whose = {} if folder is None else _whose(plan, patience, make_weights)

    def restored(self, shapes: Any) -> _Kept | None:
        """What the folder holds, refused if another call made it."""
        if self.folder is None or checkpoint.latest(self.folder) is None:
            return None
        about = checkpoint.metadata(self.folder)
        for name, now in self.whose.items():
            if (then := about.get("whose", {}).get(name)) != now:
                raise ValueError(
                    f"folder {str(self.folder)!r} holds the checkpoint of another fit: its {name}"
                    f" was {then}, not {now}: pass what it was made with, or another folder"
                )
        like = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        pair = (like, like) if self.patience is not None else (like,)
        epoch, states, about = checkpoint.restore(self.folder, pair)
        self.history = about["history"]
        if epoch > self.epochs:
            raise ValueError(
                f"epochs must be at least {epoch}, which folder {str(self.folder)!r} holds; got"
                f" {self.epochs}"
            )
        self._write_log()
        return _Kept(states[0], states[-1], epoch)

    def written(
        self, kept: _Kept, state: Any, means: dict[str, float], val: float | None, seconds: float
    ) -> _Kept:
        """After one more epoch."""
        seen = means | ({} if val is None else {"val_accuracy": val}) | {"seconds": seconds}
        for name, x in seen.items():
            self.history.setdefault(name, []).append(x)
        best = state if self._since_best() == 0 else kept.best
        now = _Kept(state, best, kept.epoch + 1)
        if self.folder is not None:
            pair = (state, best) if self.patience is not None else (state,)
            about = {"whose": self.whose, "history": self.history}
            checkpoint.save(self.folder, now.epoch, pair, about)
        self._write_log()
        if self.hook is not None:
            self.hook(now.epoch, seen)
        return now

    def enough(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self._since_best() >= self.patience

    def _since_best(self) -> int:
        """Epochs since the best validation accuracy, the first of equal ones."""
        val = self.history.get("val_accuracy", [])
        return len(val) - 1 - int(np.argmax(val)) if val else 0

    def _write_log(self) -> None:
        if self.log is None:
            return
        epochs = zip(*self.history.values(), strict=True)
        rows = [dict(zip(self.history, now, strict=True)) for now in epochs]
        lines = [json.dumps({"epoch": i} | row) + "\n" for i, row in enumerate(rows, 1)]
        write_whole(self.log, "".join(lines))


def _whose(plan: _Plan, patience: int | None, make_weights: MakeWeights) -> dict[str, Any]:
    """What decides how a training goes, but for how long it is.

    What shows itself stands first: a message with its two values tells more than digests do.
    """
    found = hashlib.sha256()
    for x in jax.tree.leaves((plan.train, plan.val)):
        found.update(f"{x.dtype}{x.shape}".encode())
        found.update(np.ascontiguousarray(x).data)
    told = re.sub(r" at 0x[0-9a-f]+", "", repr(plan.learner))
    return {
        "learner": told,
        "data": found.hexdigest(),
        "key": np.asarray(jax.random.key_data(plan.key)).tolist(),
        "batch_size": plan.batch_size,
        "patience": patience,
        "learner, augment, encode or make_weights": fingerprint(
            (plan.learner, plan.augment, plan.encode, make_weights)
        )[:12],
    }


def __dir__() -> list[str]:
    return __all__
