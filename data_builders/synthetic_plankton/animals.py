"""Worms, molluscs and larvae."""

import cmath

import numpy as np

from data_builders.synthetic_plankton.dice import Dice
from data_builders.synthetic_plankton.shapes import (
    Sketch,
    arc,
    ellipse,
    evenly,
    normals,
    profile,
    ribbon,
    spine,
)


def chaetognath(dice: Dice) -> Sketch:
    """An arrow worm: a long thin clear body, hooked head, two pairs of fins and a tail fin."""
    sketch = Sketch(texture=0.1, density=0.9, bend=dice.between(-1.1, 1.1))
    ink, half = dice.between(55, 105), dice.between(0.018, 0.028)
    edge = ink + dice.between(35, 65)
    for start, length in ((-0.22, 0.17), (0.03, 0.15)):
        for side in (-1, 1):
            fin = arc(start + 0j, start + length * 0.4 + 4.6j * half * side, start + length + 0j)
            sketch.fill(fin, ink * 0.75)
    tail_fin = np.array([-0.4, -0.53 + 2.8j * half, -0.5, -0.53 - 2.8j * half])
    sketch.body(tail_fin, ink * 0.75, ink, 0.007)
    shape = profile(24, (0, 0.15, 0.5, 0.88, 0.93, 1), (0.35, 0.8, 1, 0.95, 0.7, 0.75)) * half
    sketch.body(ribbon(spine(1.0), shape), ink, edge, 0.009)
    sketch.line(np.array([-0.2 + 0j, 0.42 + 0j]), edge + 20, 0.011)
    sketch.fill(ellipse(0.49 + 0j, 0.042, half * 1.35), edge + 30)
    for side in (-1, 1):
        hook = arc(0.5 + 1j * side * half, 0.56 + 2.2j * side * half, 0.545 + 0.3j * side * half)
        sketch.line(hook, edge + 50, 0.01)
    return sketch


def polychaete(dice: Dice) -> Sketch:
    """A worm of many segments, each with a pair of bristled feet; feelers on the head."""
    sketch = Sketch(texture=0.25, bend=dice.between(-1.8, 1.8))
    ink, half, segments = dice.between(80, 140), dice.between(0.04, 0.065), dice.count(12, 20)
    reach = dice.between(1.7, 2.6) * half
    for x in evenly(-0.45, 0.4, segments):
        size = 1.0 if x > -0.2 else 1.0 + 1.6 * (x + 0.2)
        for side in (-1, 1):
            foot = x - 0.025 + 1j * side * reach * size
            sketch.line(np.array([x + 0j, foot]), ink + 25, 0.024)
            bristle = cmath.rect(reach * 0.7 * size, side * dice.between(1.6, 2.4))
            sketch.line(np.array([foot, foot + bristle]), ink, 0.007)
    shape = profile(24, (0, 0.3, 0.7, 0.95, 1), (0.25, 0.8, 1, 0.95, 0.5)) * half
    sketch.body(ribbon(spine(1.0), shape), ink, ink + 50, 0.012)
    for x in evenly(-0.42, 0.38, segments):
        sketch.line(np.array([x - 0.8j * half, x + 0.8j * half]), ink + 45, 0.008)
    for side in (-1, 1):
        feeler = arc(0.48 + 0.02j * side, 0.58 + 0.02j * side, 0.6 + 0.1j * side)
        sketch.line(feeler, ink + 30, 0.012)
        sketch.dot(0.45 + 0.022j * side, 0.014, 230)
    return sketch


def pteropod(dice: Dice) -> Sketch:
    """A coiled snail shell, dark and glassy, with two wings where the foot comes out."""
    sketch = Sketch(texture=0.2)
    ink, turns = dice.between(95, 160), dice.between(2.0, 2.8)
    if dice.chance(0.75):
        for side in (-1, 1):
            sweep = side * dice.between(0.35, 0.75)
            tip = 0.3 + 0.16j + cmath.rect(dice.between(0.35, 0.5), 0.5 + sweep)
            middle = (0.3 + 0.16j + tip) / 2
            sketch.body(ellipse(middle, abs(tip - middle) * 1.1, 0.075, 0.5 + sweep),
                        ink * 0.5, ink * 0.8, 0.012)  # fmt: skip
    angles = np.linspace(-0.3, -0.3 - 2 * np.pi * turns, 60)
    radii = 0.33 * np.exp(np.linspace(0, -2.0, 60))
    outer = ellipse(-0.02 + 0j, 0.33, 0.3)
    sketch.body(outer, ink, ink + 55, 0.024)
    sketch.body(ellipse(0.22 + 0.1j, 0.17, 0.14, 0.6), ink, ink + 50, 0.02)
    sketch.line(radii * np.exp(-1j * angles), min(ink + 75, 240), 0.026)
    sketch.dot(0j, 0.04, min(ink + 70, 240))
    return sketch


def bivalve_larva(dice: Dice) -> Sketch:
    """A D-shaped shell: straight hinge, growth lines that follow the rim, a dark gut."""
    sketch = Sketch(texture=0.2)
    ink, deep = dice.between(105, 170), dice.between(0.36, 0.46)
    angles = np.linspace(0.1, np.pi - 0.1, 30)
    shell = 0.46 * np.cos(angles) * (1 + 0.08 * np.sin(angles)) - 1j * deep * np.sin(angles) ** 0.75
    shell = shell + 0.15j
    sketch.body(shell, ink, min(ink + 60, 240), 0.03)
    for ring in (0.84, 0.68):
        sketch.line((shell - 0.13j) * ring + 0.13j, ink + 25, 0.014)
    sketch.fill(ellipse(complex(dice.between(-0.1, 0.1), -0.04), 0.16, 0.11), min(ink + 55, 235))
    sketch.fill(ellipse(complex(dice.between(0.16, 0.26), 0.0), 0.06, 0.05), ink - 50)
    sketch.line(np.array([-0.4 + 0.12j, 0.4 + 0.12j]), min(ink + 70, 245), 0.035)
    return sketch


def pluteus(dice: Dice) -> Sketch:
    """A sea urchin's larva: a cone of tissue on long straight skeletal rods, like an easel."""
    sketch = Sketch(texture=0.12, density=0.95)
    ink, spread = dice.between(55, 95), dice.between(0.28, 0.5)
    rod = ink + dice.between(60, 95)
    apex, pairs = -0.32 + 0j, dice.count(2, 3)
    body = np.array([apex, -0.02 + 0.2j, 0.1 + 0.12j, 0.02, 0.1 - 0.12j, -0.02 - 0.2j])
    for pair in range(pairs):
        angle = spread * (1 - pair / pairs * 0.75)
        for side in (-1, 1):
            length = dice.between(0.8, 1.0) * (1 - 0.12 * pair)
            tip = apex + cmath.rect(length, side * angle)
            arm = arc(apex, apex + cmath.rect(length / 2, side * angle * 1.2), tip)
            sketch.fill(ribbon(arm, profile(12, (0, 0.4, 1), (0.03, 0.04, 0.015))), ink)
            sketch.line(arm, rod, 0.018)
    sketch.body(body, ink + 15, ink + 55, 0.018)
    sketch.fill(ellipse(-0.1 + 0j, 0.1, 0.075), rod + 30)
    sketch.dot(apex, 0.025, rod)
    return sketch


def fish_egg(dice: Dice) -> Sketch:
    """A clear sphere in a thin membrane: yolk, sometimes an oil drop or a curled embryo."""
    sketch = Sketch(texture=0.08)
    ink, rim = dice.between(36, 70), dice.between(130, 190)
    width = dice.between(0.025, 0.05)
    sketch.body(ellipse(0j, 0.45, dice.between(0.42, 0.45)), ink, rim, width)
    sketch.line(ellipse(0j, 0.425 - width, 0.425 - width), ink + 25, 0.03, closed=True)
    yolk = dice.between(0.3, 0.38)
    place = complex(dice.between(-0.05, 0.05), dice.between(-0.05, 0.05))
    sketch.body(ellipse(place, yolk, yolk * dice.between(0.9, 1)), ink + 18, ink + 45, 0.014)
    if dice.chance(0.6):
        embryo = place + 0.84 * yolk * np.exp(1j * np.linspace(0, dice.between(2.5, 4.5), 16))
        half_width = profile(16, (0, 0.2, 0.6, 1), (0.055, 0.045, 0.035, 0.012))
        sketch.fill(ribbon(embryo, half_width), ink + 95)
        sketch.dot(complex(embryo[1]), 0.035, 215)
    if dice.chance(0.7):
        drop = place + cmath.rect(0.17, dice.between(0, 6.28))
        sketch.body(ellipse(drop, 0.07, 0.07), ink - 10, rim, 0.024)
    return sketch


def fish_larva(dice: Dice) -> Sketch:
    """A big head with a large dark eye, a tapering body in a fin fold, gut and muscle blocks."""
    sketch = Sketch(texture=0.15, bend=dice.between(-0.9, 0.9))
    ink, half = dice.between(70, 125), dice.between(0.05, 0.07)
    curve = spine(1.0)
    fold = profile(24, (0, 0.12, 0.6, 0.85, 1), (1.2, 1.5, 1.45, 1.2, 0.3)) * half
    sketch.fill(ribbon(curve, fold), ink * 0.5)
    shape = profile(24, (0, 0.4, 0.7, 0.82, 0.93, 1), (0.12, 0.5, 0.9, 1.35, 1.25, 0.35)) * half
    sketch.body(ribbon(curve, shape), ink, ink + 50, 0.012)
    side = normals(curve) * shape
    for joint in range(3, 17, 2):
        bow = curve[joint] - 0.02
        sketch.line(np.array([curve[joint] + side[joint], bow, curve[joint] - side[joint]]),
                    ink + 30, 0.008)  # fmt: skip
    sketch.fill(ellipse(0.18 - 0.9j * half, 0.14, half * 0.6), ink + 60)
    sketch.dot(0.4 + 0.3j * half, half * dice.between(0.6, 0.75), 245)
    return sketch
