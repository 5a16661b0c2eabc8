"""Which arithmetic renders tumors: the compiled one, or its numpy twin where numba is missing or unwanted."""

from __future__ import annotations

import logging
import os
from functools import cache
from types import ModuleType

log = logging.getLogger(__name__)
SWITCH = "SYNTHOMA_KERNELS"  # an environment variable; `numpy` leaves numba out


@cache
def kernels() -> ModuleType:
    """The module `compiled`, or `reference` where numba is missing; both have the same functions.

    Imported when the first tumor is rendered: numba takes half a second.
    """
    from synthoma.synthesis.kernels import reference

    if os.environ.get(SWITCH, "") == "numpy":
        return reference
    try:
        from synthoma.synthesis.kernels import compiled
    except ImportError as error:  # missing, or made for another numpy
        log.warning("tumors are rendered some times slower: %s. pip install numba", error)
        return reference
    return compiled
