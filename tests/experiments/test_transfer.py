"""A trained network on devices: tested, trained on, and priced."""

import json

import pytest

from experiments import transfer


@pytest.mark.slow
def test_each_way_to_write_is_tested_before_and_after_training_on(tmp_path):
    config = transfer.Config(seeds=1, epochs=2, tuned=1, sigma_d2d=(0.3,), out=tmp_path)
    rows = transfer.run(config)
    assert json.loads((tmp_path / "metrics.json").read_text())["runs"] == rows
    numbers, *moved = rows
    assert numbers["moved"] > 0.8
    assert [row["write"] for row in moved] == ["exact", "open-loop", "write-verify"]
    by = {row["write"]: row for row in moved}
    assert by["exact"]["moved"] > by["open-loop"]["moved"]
    assert by["open-loop"]["tuned"] > by["open-loop"]["moved"]
    for row in moved:
        assert row["energy"] > 0
        assert row["energy_tuned"] > 0
