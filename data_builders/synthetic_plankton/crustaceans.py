"""Crustaceans, each drawn from above or from the side, head towards +x."""

import cmath
import itertools

import numpy as np

from data_builders.synthetic_plankton.dice import Dice
from data_builders.synthetic_plankton.shapes import (
    Sketch,
    arc,
    blob,
    ellipse,
    evenly,
    fan,
    profile,
    ribbon,
    spine,
)


def prosome(dice: Dice, length: float, height: float) -> np.ndarray:
    """A copepod's front body: widest behind the head, blunt at the rear."""
    head = dice.count(3, 8) / 10
    half_widths = (0.45, 0.86, 1.0, 0.95, 0.5 + head / 2, head / 2)
    shape = profile(24, (0, 0.12, 0.4, 0.7, 0.93, 1), half_widths) * height
    return ribbon(spine(length), shape)


def segments(sketch: Sketch, length: float, height: float, number: int, ink: float) -> None:
    """The joints between the body's segments, as bowed cross lines in the rear half."""
    for position in evenly(-0.38, 0.12, number):
        x, y = position * length, height * (0.92 if position > -0.3 else 0.75)
        sketch.line(np.array([x - 1j * y, x - 0.015, x + 1j * y]), ink, 0.01)


def urosome(sketch: Sketch, dice: Dice, start: float, length: float, ink: float) -> None:
    """The narrow rear body: three or four joints, then the caudal furca with its setae."""
    joints, half_width = dice.count(3, 4), dice.between(0.026, 0.04)
    edges = evenly(start, start - length, joints + 1)
    for front, rear in itertools.pairwise(edges):
        corners = np.array([front - 1j * half_width, front + 1j * half_width,
                            rear + 0.8j * half_width, rear - 0.8j * half_width])  # fmt: skip
        sketch.fill(corners, ink)
        half_width *= 0.9
    furca, spread = dice.between(0.06, 0.1), dice.between(0.02, 0.05)
    for side in (-1, 1):
        tip = start - length - furca + side * 1j * spread
        sketch.line(np.array([start - length + side * 0.5j * half_width, tip]), ink + 30, 0.022)
        setae = (np.pi + side * (turn - 0.2) for turn in (-0.12, 0.0, 0.12))
        sketch.line(fan(tip, 1.2 * furca, setae), ink * 0.7, 0.006)


def _antennules(sketch: Sketch, dice: Dice, root: float, reach: float, ink: float) -> None:
    """The two long first antennae, held out, swept back or folded along the body."""
    swept = dice.between(0.9, 2.5)
    for side in (-1, 1):
        sweep = swept + dice.between(-0.2, 0.2)
        knee = root + cmath.rect(0.45 * reach, side * (sweep - dice.between(0.3, 0.8)))
        tip = root + cmath.rect(reach * dice.between(0.9, 1.05), side * sweep)
        if dice.chance(0.12):
            tip = knee
        sketch.line(arc(root + side * 0.04j, knee, tip), ink, dice.between(0.014, 0.022))


def _legs(sketch: Sketch, dice: Dice, height: float, ink: float) -> None:
    """Swimming legs that stick out on one side when the animal is seen from the side."""
    for x in evenly(-0.2, 0.15, dice.count(3, 5)):
        root = x - 0.8j * height
        foot = root - dice.between(0.05, 0.12) - 1j * dice.between(0.07, 0.13)
        sketch.line(np.array([root, foot]), ink, 0.02)


def copepod_calanoid(dice: Dice) -> Sketch:
    """Long oval prosome, short urosome, antennules as long as the body."""
    sketch = Sketch(texture=0.2, bend=dice.between(-0.25, 0.25))
    height, ink = dice.between(0.13, 0.19), dice.between(75, 150)
    edge = ink + dice.between(35, 70)
    _antennules(sketch, dice, 0.4, dice.between(0.65, 1.05), ink + 30)
    if dice.chance(0.55):
        _legs(sketch, dice, height, ink + 20)
    urosome(sketch, dice, -0.46, dice.between(0.18, 0.27), ink + 15)
    sketch.body(prosome(dice, 1.0, height), ink, edge)
    gut = dice.between(0.14, 0.26)
    sketch.fill(ellipse(dice.between(-0.08, 0.1), gut, height * dice.between(0.3, 0.55)), edge)
    if dice.chance(0.4):
        sketch.fill(ellipse(dice.between(-0.2, 0.0), 0.16, height * 0.3), ink * 0.45)
    segments(sketch, 1.0, height, dice.count(3, 4), edge)
    sketch.dot(complex(0.43, 0.0), 0.022, 215)
    return sketch


def copepod_cyclopoid(dice: Dice) -> Sketch:
    """Short egg-shaped prosome, urosome nearly as long, short antennules, often two egg sacs."""
    sketch = Sketch(texture=0.2, bend=dice.between(-0.3, 0.3))
    height, ink = dice.between(0.15, 0.2), dice.between(75, 150)
    edge = ink + dice.between(35, 70)
    _antennules(sketch, dice, 0.26, dice.between(0.3, 0.45), ink + 30)
    urosome(sketch, dice, -0.3, dice.between(0.38, 0.5), ink + 20)
    if dice.chance(0.6):
        _egg_sacs(sketch, dice, ink)
    sketch.body(prosome(dice, 0.68, height), ink, edge)
    sketch.fill(ellipse(dice.between(-0.05, 0.08), 0.13, height * 0.45), edge)
    segments(sketch, 0.68, height, 3, edge)
    sketch.dot(complex(0.28, 0.0), 0.022, 215)
    return sketch


def _egg_sacs(sketch: Sketch, dice: Dice, ink: float) -> None:
    """A pair of sacs packed with eggs, one on each side of the urosome."""
    tilt, length = dice.between(0.15, 0.5), dice.between(0.13, 0.18)
    for side in (-1, 1):
        centre = -0.4 + side * 1j * dice.between(0.09, 0.12)
        sketch.body(ellipse(centre, length, 0.06, -side * tilt), ink + 30, ink + 60, 0.012)
        along = cmath.rect(length, -side * tilt)
        for position in (-0.6, -0.2, 0.2, 0.6):
            offset = 0.022j * dice.between(-1, 1)
            sketch.dot(centre + along * position + offset, 0.028, ink + 75)


def nauplius(dice: Dice) -> Sketch:
    """A larva: pear-shaped body, three pairs of limbs with setae, one eye, two tail spines."""
    sketch = Sketch(texture=0.15)
    ink, height = dice.between(70, 140), dice.between(0.24, 0.32)
    edge, beat = ink + dice.between(40, 70), dice.between(-0.25, 0.25)
    for angle, reach in ((0.75, 0.5), (1.3, 0.56), (1.95, 0.5)):
        for side in (-1, 1):
            _limb(sketch, dice, side * (angle + beat), reach, ink + 25)
    for side in (-1, 1):
        sketch.line(np.array([-0.3 + 0.04j * side, -0.5 + 0.07j * side]), ink + 30, 0.016)
    shape = profile(24, (0, 0.15, 0.5, 0.8, 0.95, 1), (0.25, 0.55, 0.9, 1.0, 0.7, 0.3)) * height
    sketch.body(ribbon(spine(0.68), shape), ink, edge)
    sketch.fill(ellipse(-0.05, 0.14, height * 0.45), edge + 10)
    sketch.dot(complex(0.24, 0.0), 0.035, 230)
    return sketch


def _limb(sketch: Sketch, dice: Dice, angle: float, reach: float, ink: float) -> None:
    """A bent limb that ends in a fan of setae."""
    root = cmath.rect(0.12, angle)
    knee = cmath.rect(0.75 * reach, angle - 0.15)
    foot = cmath.rect(reach, angle + dice.between(-0.1, 0.25))
    sketch.line(np.array([root, knee, foot]), ink, 0.032)
    setae = fan(foot, 0.16, (angle + turn for turn in (-0.35, 0.1, 0.5)))
    sketch.line(setae, ink * 0.75, 0.007)


def ostracod(dice: Dice) -> Sketch:
    """A dark bean-shaped shell of two valves with limbs showing at the notch."""
    sketch = Sketch(texture=0.25)
    ink, height = dice.between(120, 190), dice.between(0.29, 0.36)
    for _ in range(dice.count(2, 5)):
        root = 0.36 - 0.16j
        tip = root + cmath.rect(dice.between(0.14, 0.28), dice.between(-1.2, 0.3))
        sketch.line(arc(root, (root + tip) / 2 + 0.05j, tip), ink - 30, 0.014)
    shell = ellipse(0j, 0.48, height)
    dent = dice.between(0.03, 0.09) * np.exp(-(np.abs(shell + 1j * height) ** 2) * 30)
    shell = shell + 1j * dent - 0.06 * np.imag(shell)
    sketch.body(shell, ink, min(ink + 50, 240), 0.03)
    sketch.fill(blob(dice, complex(-0.08, 0.02), 0.17, 0.35), min(ink + 45, 235))
    sketch.fill(ellipse(0.24 + 0.1j, 0.08, 0.06), ink - 45)
    sketch.dot(complex(0.3, 0.13), 0.035, 245)
    return sketch


def cladoceran(dice: Dice) -> Sketch:
    """Round brood pouch with eggs, a head that is nearly all eye, branched antennae, a spine."""
    sketch = Sketch(texture=0.15)
    ink = dice.between(65, 125)
    edge, tail = ink + 55, dice.between(0.12, 0.3)
    for side in (-1, 1):
        root, fork = 0.2 + 0.1j * side, complex(0.1, side * dice.between(0.36, 0.46))
        sketch.line(np.array([root, fork]), ink + 30, 0.035)
        for angle in (dice.between(1.7, 2.2), dice.between(2.4, 2.9)):
            tip = fork + cmath.rect(0.24, side * angle)
            sketch.line(np.array([fork, tip]), ink + 20, 0.016)
    sketch.line(np.array([-0.3 + 0.06j, -0.42 - tail + 0.12j]), ink + 40, 0.026)
    sketch.body(blob(dice, -0.1 + 0j, 0.3, 0.08), ink, edge, 0.022)
    for _ in range(dice.count(2, 5)):
        centre = complex(dice.between(-0.26, -0.02), dice.between(-0.02, 0.16))
        sketch.body(ellipse(centre, 0.068, 0.06), ink + 40, ink + 80, 0.01)
    sketch.line(arc(0.2 - 0.05j, 0.0 - 0.2j, -0.28 - 0.1j), ink + 60, 0.045)
    sketch.body(ellipse(0.26 + 0j, 0.15, 0.14), ink, edge, 0.02)
    sketch.dot(complex(0.31, 0.0), dice.between(0.075, 0.1), 245)
    return sketch
