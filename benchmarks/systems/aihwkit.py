"""IBM's analogue hardware kit: devices that are pulsed, on the CPU."""

from benchmarks import device_perceptron
from benchmarks.workloads import Case

PACKAGES = ("aihwkit", "torch")


def w5() -> Case:
    learner = device_perceptron.aihwkit(0.5)
    return device_perceptron.case(learner, "updates picture by picture, trains of pulses")


CASES = {"W5": w5}
