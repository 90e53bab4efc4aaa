"""Gelatinous animals: mostly water, seen by their rims, guts and muscles."""

import cmath

import numpy as np

from data_builders.synthetic_plankton.dice import Dice
from data_builders.synthetic_plankton.shapes import (
    Sketch,
    arc,
    ellipse,
    evenly,
    profile,
    ribbon,
    spine,
    wander,
)


def hydromedusa(dice: Dice) -> Sketch:
    """A bell with radial canals, manubrium and tentacles; one in four is seen from above."""
    sketch = Sketch(texture=0.12, density=0.85)
    if dice.chance(0.25):
        _medusa_from_above(sketch, dice)
    else:
        _medusa_from_side(sketch, dice)
    return sketch


def _medusa_from_side(sketch: Sketch, dice: Dice) -> None:
    """The apex points to +x and the tentacles trail towards -x."""
    ink, tall, wide = dice.between(38, 75), dice.between(0.3, 0.5), dice.between(0.28, 0.38)
    edge = ink + dice.between(60, 100)
    number, reach = dice.count(4, 12), dice.between(0.2, 0.75)
    for offset in evenly(-0.92, 0.92, number):
        length = reach * dice.between(0.6, 1.2)
        root = 0.02 + 1j * offset * wide
        heading = np.pi - 0.5 * offset
        sketch.line(wander(dice, root, heading, length, 0.7), edge - 25, 0.013)
        sketch.dot(root, 0.022, edge + 60)
    angles = np.linspace(-np.pi / 2, np.pi / 2, 24)
    dome = tall * np.cos(angles) ** 0.8 + 1j * wide * np.sin(angles)
    rim = arc(1j * wide, complex(dice.between(-0.05, 0.08), 0), -1j * wide)
    sketch.body(np.concatenate([dome, rim]), ink, edge, 0.022)
    sketch.line(dome * 0.8, ink + 30, 0.012)
    for offset in (-0.5, 0.5):
        canal = arc(1j * offset * wide, tall * 0.5 + 1.2j * offset * wide, tall * 0.78 + 0j)
        sketch.line(canal, ink + 45, 0.014)
    mouth = tall * 0.75 - dice.between(0.2, 0.38)
    sketch.line(np.array([tall * 0.75 + 0j, mouth + 0j]), ink + 95, dice.between(0.04, 0.08))


def _medusa_from_above(sketch: Sketch, dice: Dice) -> None:
    """A disc with a cross of canals and a fringe of tentacles."""
    ink, radius = dice.between(38, 75), 0.34
    edge, number = ink + dice.between(60, 100), dice.count(8, 20)
    for turn in evenly(0, 2 * np.pi, number + 1)[1:]:
        root = cmath.rect(radius, turn)
        length = dice.between(0.06, 0.22)
        sketch.line(wander(dice, root, turn, length, 0.9), edge - 20, 0.012)
    sketch.body(ellipse(0j, radius, radius * dice.between(0.8, 1)), ink, edge, 0.024)
    for turn in (0.0, np.pi / 2):
        arm = cmath.rect(0.92 * radius, turn)
        sketch.line(np.array([-arm, arm]), ink + 50, 0.018)
    sketch.fill(ellipse(0j, 0.09, 0.08), ink + 100)


def ctenophore(dice: Dice) -> Sketch:
    """An egg of jelly with rows of comb plates from pole to pole, often two fishing tentacles."""
    sketch = Sketch(texture=0.1, density=0.85)
    ink, height = dice.between(36, 65), dice.between(0.3, 0.4)
    edge = ink + dice.between(50, 85)
    if dice.chance(0.6):
        for side in (-1, 1):
            heading = np.pi - side * dice.between(0.1, 0.5)
            tentacle = wander(dice, -0.1 + 0.16j * side, heading, dice.between(0.6, 1.0), 0.6)
            sketch.line(tentacle, edge - 15, 0.014)
            for point in tentacle[5::2].tolist():
                sketch.line(np.array([point, point - 0.06 + 0.06j * side]), ink + 20, 0.006)
    sketch.body(ellipse(0j, 0.45, height), ink, edge, 0.02)
    for row in (-1.2, -0.55, 0.0, 0.55, 1.2):
        lift = 1j * row * height
        meridian = arc(0.37 + 0.25 * lift, 1.25 * lift, -0.37 + 0.25 * lift)
        for place in meridian[1:-1].tolist():
            place += dice.between(-0.015, 0.015)
            sketch.line(np.array([place - 0.022j, place + 0.022j]), edge + 35, 0.022)
    sketch.line(np.array([0.42 + 0j, 0.05 + 0j]), edge + 10, 0.03)
    sketch.dot(-0.4 + 0j, 0.03, edge + 60)
    return sketch


def siphonophore(dice: Dice) -> Sketch:
    """A pointed faceted swimming bell with a trailing stem of feeding zooids."""
    sketch = Sketch(texture=0.1, density=0.9, bend=dice.between(-0.35, 0.35))
    ink, height = dice.between(40, 75), dice.between(0.1, 0.15)
    edge = ink + dice.between(70, 105)
    stem = wander(dice, -0.05 - 0.03j, np.pi, dice.between(0.5, 0.9), 0.7)
    sketch.line(stem, edge, 0.016)
    for position in range(2, 16, 2):
        size = dice.between(0.025, 0.05)
        sketch.body(ellipse(complex(stem[position]), size * 1.3, size), ink + 60, edge + 30, 0.01)
        heading = -np.pi / 2 + dice.between(-0.6, 0.6)
        zooid = wander(dice, complex(stem[position]), heading, dice.between(0.08, 0.2), 1.0)
        sketch.line(zooid, edge - 20, 0.008)
    outline = np.array([0.55, 0.1 + 1j * height, -0.14 + 1.15j * height, -0.1,
                        -0.14 - 1.15j * height, 0.1 - 1j * height])  # fmt: skip
    sketch.body(outline, ink, edge, 0.02)
    sketch.line(np.array([0.54, 0.1 + 0.25j * height, -0.12 + 0.3j * height]), edge - 25, 0.011)
    sketch.line(ellipse(0.05 - 0.3j * height, 0.17, height * 0.42), edge - 10, 0.012, closed=True)
    sketch.line(np.array([0.02 + 0.6j * height, 0.3 + 0.35j * height]), edge + 40, 0.03)
    return sketch


def salp(dice: Dice) -> Sketch:
    """A transparent barrel with muscle bands and one dark gut."""
    sketch = Sketch(texture=0.1, density=0.85, bend=dice.between(-0.2, 0.2))
    ink, height = dice.between(36, 62), dice.between(0.19, 0.28)
    edge = ink + dice.between(55, 90)
    shape = profile(24, (0, 0.08, 0.3, 0.5, 0.7, 0.92, 1), (0.6, 0.72, 0.95, 1, 0.95, 0.72, 0.6))
    sketch.body(ribbon(spine(1.0), shape * height), ink, edge, 0.022)
    for x in evenly(-0.36, 0.36, dice.count(5, 8)):
        y = height * (0.96 - 1.2 * x * x)
        sketch.line(arc(x - 1j * y, x - 0.09 + 0j, x + 1j * y), edge + 5, dice.between(0.018, 0.03))
    sketch.fill(ellipse(-0.28 - 0.45j * height, 0.085, 0.065), 225)
    sketch.line(np.array([-0.25 - 0.4j * height, 0.3 + 0.3j * height]), edge, 0.018)
    return sketch


def appendicularian(dice: Dice) -> Sketch:
    """A small dark trunk and a long flat tail that leaves it at an angle."""
    sketch = Sketch(texture=0.12, density=0.95)
    ink = dice.between(60, 105)
    bow, lean = dice.between(-1.0, 1.0), dice.between(-0.5, 0.5)
    end = cmath.rect(0.85, np.pi + lean)
    middle = end * 0.5 + 1j * bow * 0.35
    tail = arc(0j, middle, end)
    half_width = profile(12, (0, 0.2, 0.7, 1), (0.35, 1, 0.85, 0.1)) * dice.between(0.045, 0.07)
    sketch.body(ribbon(tail, half_width), ink, ink + 35, 0.01)
    sketch.line(tail, ink + 75, 0.018)
    tilt = dice.between(-0.6, 0.6)
    centre = cmath.rect(0.09, tilt)
    sketch.body(ellipse(centre, dice.between(0.13, 0.17), 0.088, tilt), ink + 55, ink + 90, 0.014)
    sketch.fill(ellipse(centre * 0.3, 0.065, 0.06), 225)
    sketch.dot(centre * 2.0, 0.03, 205)
    return sketch
