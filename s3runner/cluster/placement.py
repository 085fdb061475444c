"""On which nodes a generation's pods run, once earlier ones were taken away too often.

Pure. Apart from the pod's object because deciding reads it too.
"""

from __future__ import annotations

from dataclasses import replace

from s3runner.model import Destination


def shape_for(destination: Destination, placement: int) -> Destination:
    """Return the destination as it is for a generation: 0 is its own, k its `then[k - 1]`.

    What a choice does not say is as in the destination itself, whatever the choices before it were.
    """
    place = destination.kubernetes
    if place is None or placement == 0:
        return destination
    choice = place.then[placement - 1]
    evictions = choice.max_evictions
    return replace(
        destination,
        max_evictions=destination.max_evictions if evictions is None else evictions,
        kubernetes=replace(place, pod=replace(place.pod, nodes=choice.nodes.over(place.pod.nodes))),
    )
