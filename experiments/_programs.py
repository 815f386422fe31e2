"""What makes the parts of a run, once."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Key

from neurojax._compile import Parts


class Made:
    """What makes a pytree of a key, once; lowered at once, so that what cannot be is refused.

    Lightly optimised, the same numbers are compiled in half the time.
    """

    def __init__(self, make: Callable[[Key[Array, ""]], Any], key: Key[Array, ""]):
        quick: Any = {"xla_backend_optimization_level": 1}
        program = jax.jit(lambda key: Parts.of(make(key)), compiler_options=quick)
        self.key, self.lowered = key, program.lower(key)

    def __call__(self) -> Any:
        """Compile, and make it."""
        return self.lowered.compile()(self.key).whole()
