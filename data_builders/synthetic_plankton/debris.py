"""What is not alive, or not any more: detritus, fragments and artefacts of the instrument."""

import cmath

import numpy as np

from data_builders.synthetic_plankton.crustaceans import prosome, segments, urosome
from data_builders.synthetic_plankton.dice import Dice
from data_builders.synthetic_plankton.shapes import (
    Sketch,
    blob,
    blobs,
    ellipse,
    profile,
    ribbon,
    spine,
    wander,
)


def detritus_dark(dice: Dice) -> Sketch:
    """A compact opaque lump with a ragged rim."""
    sketch = Sketch(texture=0.35)
    ink, squash = dice.between(130, 225), dice.between(0.4, 1.0)
    sketch.fill(blob(dice, 0j, 0.36, dice.between(0.25, 0.6), squash), ink)
    lumps = dice.count(2, 7)
    places = 0.14 * (dice.bells(lumps) + 1j * dice.bells(lumps))
    for outline in blobs(dice, places, dice.many(lumps, 0.06, 0.16), 0.5):
        sketch.fill(outline, ink * dice.between(0.6, 1.15))
    if dice.chance(0.3):
        thread = wander(dice, 0.1j, dice.between(0, 6.28), dice.between(0.35, 0.6), 0.8)
        sketch.line(thread, ink * 0.7, 0.012)
    return sketch


def marine_snow(dice: Dice) -> Sketch:
    """A loose pale fluff of many small pieces with threads and dark grains."""
    sketch = Sketch(texture=0.7, density=dice.between(0.6, 0.95), defocus=dice.between(0, 0.02))
    ink, spread = dice.between(55, 95), dice.between(0.22, 0.32)
    sketch.fill(blob(dice, 0j, 0.26, 0.5, dice.between(0.5, 1)), ink)
    flakes = dice.count(7, 14)
    places = spread * (dice.bells(flakes) + 0.65j * dice.bells(flakes))
    for outline in blobs(dice, places, dice.many(flakes, 0.05, 0.15), 0.6):
        sketch.fill(outline, ink * dice.between(0.7, 1.4))
    for place in places[: dice.count(0, 5)].tolist():
        sketch.dot(place, dice.between(0.015, 0.035), ink + 90)
    for _ in range(dice.count(0, 4)):
        thread = wander(dice, 0j, dice.between(0, 6.28), dice.between(0.3, 0.6), 1.2)
        sketch.line(thread, ink + 10, 0.01)
    return sketch


def faecal_pellet(dice: Dice) -> Sketch:
    """A dark rod with round ends, a little bent, sometimes broken off at one end."""
    sketch = Sketch(texture=0.3, bend=dice.between(-0.7, 0.7))
    ink, half = dice.between(130, 215), dice.between(0.07, 0.14)
    tail = dice.count(2, 9) / 10
    shape = profile(24, (0, 0.06, 0.15, 0.85, 0.94, 1), (tail, 0.9, 1, 1, 0.85, 0.3))
    shape = shape * half * (1 + dice.many(24, -0.08, 0.08))
    sketch.body(ribbon(spine(1.0), shape), ink, min(ink + 25, 245), 0.014)
    for _ in range(dice.count(2, 5)):
        place = complex(dice.between(-0.4, 0.4), dice.between(-0.4, 0.4) * half)
        sketch.fill(blob(dice, place, half * 0.45, 0.4), min(ink * dice.between(0.75, 1.2), 250))
    return sketch


def fibre(dice: Dice) -> Sketch:
    """A thread of even width, straight or curled, with no head, fin or gut."""
    sketch = Sketch(texture=0.15, bend=dice.between(-1.5, 1.5) if dice.chance(0.6) else 0.0)
    ink, width = dice.between(90, 210), dice.between(0.014, 0.042)
    curl = dice.between(0.0, 1.0) ** 2 * 3
    sketch.line(wander(dice, -0.5 + 0j, dice.between(-0.2, 0.2), 1.0, curl), ink, width)
    if dice.chance(0.25):
        second = wander(dice, -0.3 + 0j, dice.between(-0.9, 0.9), dice.between(0.4, 0.8), curl)
        sketch.line(second, ink * 0.9, width * 0.8)
    if dice.chance(0.2):
        sketch.fill(blob(dice, complex(dice.between(-0.3, 0.3), 0), 0.04, 0.5), ink)
    return sketch


def copepod_fragment(dice: Dice) -> Sketch:
    """What is left of a dead copepod: an emptied or torn prosome, without antennules."""
    sketch = Sketch(texture=0.35, density=dice.between(0.6, 0.95), bend=dice.between(-0.5, 0.5))
    height, ink = dice.between(0.13, 0.21), dice.between(60, 130)
    edge = ink + dice.between(40, 75)
    if dice.chance(0.3):
        urosome(sketch, dice, -0.4, dice.between(0.1, 0.25), ink)
    torn = prosome(dice, 1.0, height)[: dice.count(34, 46)]
    torn = torn * (1 + dice.many(len(torn), -0.05, 0.05))
    sketch.body(torn, ink, edge)
    segments(sketch, 1.0, height, dice.count(2, 4), edge)
    for _ in range(dice.count(1, 3)):
        place = complex(dice.between(-0.25, 0.25), dice.between(-0.5, 0.5) * height)
        tone = ink * (0.4 if dice.chance(0.5) else 1.5)
        sketch.fill(blob(dice, place, dice.between(0.04, 0.09), 0.6), tone)
    return sketch


def bubble(dice: Dice) -> Sketch:
    """Air: a broad black ring around a bright middle, a perfect circle."""
    sketch = Sketch(texture=0.02)
    ring, rim, middle = dice.between(0.04, 0.2), dice.between(150, 240), dice.between(28, 75)
    for depth in (0.0, 0.7, 0.85, 1.0, 1.2, 1.5):  # light fades in over the inner rim
        radius = 0.45 - ring * depth
        fade = max(0.0, depth - 0.55) / 0.95
        sketch.fill(ellipse(0j, radius, radius), rim + (middle - rim) * fade)
    inner = 0.45 - 1.5 * ring
    glint = inner * dice.between(0.2, 0.6)
    shift = cmath.rect((inner - glint) / 2, dice.between(0, 6.28))
    sketch.fill(ellipse(shift, glint, glint), dice.between(0, 34))
    return sketch


def out_of_focus(dice: Dice) -> Sketch:
    """Something far from the focal plane: a soft grey shape without any detail."""
    sketch = Sketch(texture=0.1, density=dice.between(0.55, 0.95), defocus=dice.between(0.1, 0.17))
    ink = dice.between(75, 170)
    if dice.chance(0.5):
        sketch.fill(blob(dice, 0j, 0.36, 0.3, dice.between(0.4, 1.0)), ink)
    else:
        sketch.fill(ellipse(0j, 0.45, dice.between(0.12, 0.4)), ink)
    if dice.chance(0.4):
        sketch.line(wander(dice, 0j, dice.between(0, 6.28), 0.6, 0.8), ink, 0.04)
    return sketch


def scratch(dice: Dice) -> Sketch:
    """Straight parallel marks on the glass, dark or bright, with broken stretches."""
    sketch = Sketch(texture=0.1, density=0.9)
    lean, ink = dice.between(-0.03, 0.03), dice.between(90, 190)
    for _ in range(dice.count(1, 3)):
        start, y = dice.between(-0.55, -0.35), dice.between(-0.09, 0.09)
        end = dice.between(0.3, 0.55)
        for stretch in range(dice.count(2, 4)):
            stop = start + (end - start) * dice.between(0.35, 0.9)
            ends = np.array([complex(start, y), complex(stop, y + lean)])
            sketch.line(ends, 0.0 if dice.chance(0.25) else ink, dice.between(0.006, 0.016))
            start = stop + 0.02 * (1 + stretch % 2)
    return sketch
