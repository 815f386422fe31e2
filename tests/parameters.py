"""Where a parameter may lie, as its refusal says, and that it is taken there alone."""

import numpy as np
import pytest

POSITIVE, NONNEGATIVE, SHARE = "must be finite and > 0", "must be finite and >= 0", "[0, 1]"
_BEYOND = {POSITIVE: (0.0, -1.0), NONNEGATIVE: (-1e-3,), SHARE: (-1e-3, 1.001)}


def assert_taken_in_its_range_alone(make, name, allowed, within):
    """`make(name=x)` holds each x of `within`, and refuses what is beyond or no number."""
    for x in within:
        assert getattr(make(**{name: x}), name) == np.float32(x)
    for x in (*_BEYOND[allowed], np.nan, np.inf, "much"):
        with pytest.raises(ValueError, match=f"{name} must .*; got '?{x}"):
            make(**{name: x})
