"""The forms of bodies by name, and what generators that render inside a body share."""

from __future__ import annotations

from synthoma.synthesis.bodies.body import Form, Surface
from synthoma.synthesis.bodies.mass import MASS
from synthoma.synthesis.bodies.wall import WALL
from synthoma.synthesis.tumor import Generator, TumorPlan
from synthoma.volume import Box, Geometry

FORMS = {"mass": MASS, "wall": WALL}


def form_of(plan: TumorPlan) -> Form:
    """The form that a plan's details name."""
    return FORMS[Surface.of(plan).form]


class BodyGenerator(Generator):
    """A generator whose tumors fill a body: a mass, or a thickening of a wall."""

    def reach(self, plan: TumorPlan) -> float:
        return form_of(plan).reach(plan)

    def box(self, plan: TumorPlan, geometry: Geometry) -> Box:
        return form_of(plan).box(plan, geometry)

    def outer_box(self, plan: TumorPlan, geometry: Geometry) -> Box:
        return form_of(plan).outer_box(plan, geometry)
