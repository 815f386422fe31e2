"""Networks of the field: what each is made of, how it is run, what it is held against."""

from experiments._networks import brette, izhikevich
from experiments._networks.study import Study

STUDIES: dict[str, Study] = {**brette.STUDIES, **izhikevich.STUDIES}
