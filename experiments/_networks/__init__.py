"""Networks of the field: what each is made of, how it is run, what it is held against."""

from experiments._networks import brette, brunel, izhikevich, potjans, song, vogels
from experiments._networks.study import Study

STUDIES: dict[str, Study] = {
    **brette.STUDIES, **brunel.STUDIES, **vogels.STUDIES, **song.STUDIES, **izhikevich.STUDIES,
    **potjans.STUDIES,
}  # fmt: skip
