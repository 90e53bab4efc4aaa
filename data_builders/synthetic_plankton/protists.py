"""Single cells and chains of them."""

import cmath

import numpy as np

from data_builders.synthetic_plankton.dice import Dice
from data_builders.synthetic_plankton.shapes import Sketch, arc, blob, ellipse


def diatom_chain(dice: Dice) -> Sketch:
    """Box-shaped cells in a row: with long setae, or held together by short threads."""
    sketch = Sketch(texture=0.15, bend=dice.between(-0.7, 0.7))
    cells, ink = dice.count(5, 13), dice.between(85, 150)
    pitch = 1.0 / cells
    half = min(pitch * dice.between(0.45, 0.9), 0.1)
    gap = pitch * dice.between(0.12, 0.3)
    setae = dice.chance(0.5)
    sketch.line(np.array([-0.5 + 0j, 0.5 + 0j]), ink - 25, 0.012)
    for x in (np.arange(cells) * pitch - 0.5 + pitch / 2).tolist():
        if setae:
            _setae(sketch, dice, x, half, ink - 30)
        _cell(sketch, dice, x, (pitch - gap) / 2, half, ink)
    return sketch


def _cell(sketch: Sketch, dice: Dice, x: float, long: float, half: float, ink: float) -> None:
    """One cell: a box with dark walls and a chloroplast."""
    box = np.array([x - long - 1j * half, x + long - 1j * half,
                    x + long + 1j * half, x - long + 1j * half])  # fmt: skip
    sketch.body(box, ink - 20, ink + 60, 0.014)
    place = complex(x + dice.between(-0.2, 0.2) * long, dice.between(-0.3, 0.3) * half)
    sketch.fill(ellipse(place, long * 0.55, half * 0.5), ink + 65)


def _setae(sketch: Sketch, dice: Dice, x: float, half: float, ink: float) -> None:
    """A hair from the cell to each side, bowed outward."""
    for side in (-1, 1):
        reach, lean = dice.between(0.12, 0.25), dice.between(-0.12, 0.12)
        root, out = x + 1j * side * half, 1j * side * reach
        sketch.line(arc(root, root + 0.6 * out, root + out + lean), ink, 0.007)


def ceratium(dice: Dice) -> Sketch:
    """A plated cell with one straight horn ahead and two that curve back, like an anchor."""
    sketch = Sketch(texture=0.2)
    ink = dice.between(105, 165)
    curl, reach = dice.between(0.2, 0.55), dice.between(0.26, 0.42)
    for side in (-1, 1):
        root = -0.14 + 0.1j * side
        outward = root + complex(-0.12, side * 0.2)
        tip = outward + cmath.rect(reach, side * curl)
        sketch.line(arc(root, outward - 0.06, tip), ink + 25, 0.034)
    horn = np.array([0.08 + 0.07j, dice.between(0.55, 0.75), 0.08 - 0.07j])
    sketch.fill(horn, ink + 20)
    sketch.line(np.array([0.05, horn[1]]), ink + 25, 0.026)
    cell = np.array([0.14, 0.1 + 0.09j, -0.03 + 0.15j, -0.16 + 0.12j, -0.17 - 0.12j,
                     -0.03 - 0.15j, 0.1 - 0.09j])  # fmt: skip
    sketch.body(cell, ink, min(ink + 60, 240), 0.022)
    sketch.line(np.array([-0.03 - 0.15j, -0.045, -0.03 + 0.15j]), min(ink + 55, 235), 0.02)
    sketch.fill(blob(dice, complex(-0.08, 0.0), 0.05, 0.3), min(ink + 50, 230))
    return sketch


def radiolarian(dice: Dice) -> Sketch:
    """A dark core in a pale shell with straight spines all around."""
    sketch = Sketch(texture=0.3)
    ink, radius = dice.between(70, 120), dice.between(0.17, 0.27)
    spines = dice.count(10, 26)
    for turn in (2 * np.pi * (np.arange(spines) + dice.many(spines, 0, 0.6)) / spines).tolist():
        tip = cmath.rect(dice.between(0.36, 0.5), turn)
        sketch.line(np.array([cmath.rect(radius / 2, turn), tip]), ink + 10, 0.013)
    sketch.body(blob(dice, 0j, radius, 0.1), ink, ink + 50, 0.02)
    sketch.fill(blob(dice, 0j, radius * dice.between(0.5, 0.72), 0.2), ink + 95)
    return sketch
