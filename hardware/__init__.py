"""Physical models: memristive devices, crossbar arrays, meshes of cores, and their energy.

They respond to voltages and pulses in SI units and may use the types of `neurojax`, but
know nothing of learning: a plastic projection reaches a device through the three methods
of `neurojax.Weights`, so a network moves from ideal numbers to devices by its weights alone.
"""
