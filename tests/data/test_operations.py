"""Operations against Pillow, of which torchvision's are made, SciPy, and (live) torchvision."""

import cv2
import numpy as np
import pytest
from data_support import smooth_image
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from plankton_jax.config import AugmentationConfig
from plankton_jax.data.draws import RAND_AUGMENT, draw_augmentations, no_draws
from plankton_jax.data.geometry import border_medians, render
from plankton_jax.data.operations import NUMBER, OPERATIONS, apply_operation

FILL = 210
AMOUNTS = {
    "ShearX": (-0.9, -0.3, 0.0, 0.15, 0.3),
    "ShearY": (-0.9, -0.3, 0.0, 0.15, 0.3),
    "TranslateX": (-40.7, -3.2, 0.0, 7.9, 50.0),
    "TranslateY": (-40.7, -3.2, 0.0, 7.9, 50.0),
    "Rotate": (-135.0, -30.0, 0.0, 8.0, 90.0, 180.0),
    "Brightness": (-0.9, -0.24, 0.0, 0.24, 0.9),
    "Color": (-0.9, 0.9),
    "Contrast": (-0.9, -0.24, 0.0, 0.24, 0.9),
    "Sharpness": (-0.9, -0.24, 0.0, 0.24, 0.9),
    "Posterize": (2.0, 4.0, 7.0, 8.0),
    "Solarize": (0.0, 100.0, 187.0, 255.0),
    "AutoContrast": (0.0,),
    "Equalize": (0.0,),
    "Invert": (0.0,),
    "Identity": (0.0,),
}


def detailed_image(side: int = 96) -> np.ndarray:
    """Smooth with some noise and lines, of less than the full range."""
    noise = np.random.default_rng(5).normal(0, 4, (side, side))
    image = smooth_image(side, side).astype(float) * 0.7 + 30 + noise
    image[20:24, 10:80] = 20
    return np.rint(image).clip(0, 255).astype(np.uint8)


def by_pillow(image: np.ndarray, name: str, amount: float) -> np.ndarray:
    picture, side = Image.fromarray(image), len(image)
    factor = 1 + amount
    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        return np.asarray(getattr(ImageEnhance, name)(picture).enhance(factor))
    if name == "Rotate":
        turned = picture.rotate(amount, Image.Resampling.BILINEAR, fillcolor=FILL)
        return np.asarray(turned)
    matrices = {
        "ShearX": (1, amount, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, amount, 1, 0),
        "TranslateX": (1, 0, -int(amount), 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -int(amount)),
    }
    if name in matrices:
        affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
        moved = picture.transform((side, side), affine, matrices[name], bilinear, fillcolor=FILL)
        return np.asarray(moved)
    changed = {
        "Posterize": lambda: ImageOps.posterize(picture, int(amount)),
        "Solarize": lambda: ImageOps.solarize(picture, amount),
        "AutoContrast": lambda: ImageOps.autocontrast(picture),
        "Equalize": lambda: ImageOps.equalize(picture),
        "Invert": lambda: ImageOps.invert(picture),
        "Identity": lambda: picture,
    }
    return np.asarray(changed[name]())


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("name", AMOUNTS)
def test_an_operation_is_pillow_s(name):
    image = detailed_image()
    before = image.copy()
    moved = name in ("ShearX", "ShearY", "Rotate")
    for amount in AMOUNTS[name]:
        found = apply_operation(image, name, amount, fill=FILL)
        expected = by_pillow(image, name, amount)
        assert found.dtype == np.uint8 and found.shape == image.shape
        # Along the edge of what was turned in, OpenCV mixes image and fill; Pillow does not.
        inside = found.astype(int) - expected if not moved else 0
        assert np.abs(inside).max() <= 1, (name, amount)
        assert mean_difference(found, expected) < (1 if moved else 0.1), (name, amount)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_an_image_of_one_level(level):
    image = np.full((32, 32), level, np.uint8)
    for name, amounts in AMOUNTS.items():
        for amount in amounts:
            found = apply_operation(image, name, amount, fill=level)
            expected = by_pillow(image, name, amount)
            if name not in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
                assert np.abs(found.astype(int) - expected).max() <= 1, (name, amount)
            else:
                np.testing.assert_array_equal(found, image)


def test_blur_is_a_gaussian():
    image = detailed_image()
    for deviation in (0.5, 1.7, 4.0):
        found = apply_operation(image, "Blur", deviation)
        expected = ndimage.gaussian_filter(image.astype(float), deviation, mode="mirror")
        assert np.abs(found - expected).max() < 2
    assert apply_operation(image, "Blur", 0.0) is image


def test_noise_is_normal_and_repeats():
    image = np.full((200, 200), 128, np.uint8)
    noisy = apply_operation(image, "Noise", 0.05, bits=7)
    np.testing.assert_array_equal(noisy, apply_operation(image, "Noise", 0.05, bits=7))
    assert (noisy != apply_operation(image, "Noise", 0.05, bits=8)).any()
    assert abs(noisy.mean() - 128) < 0.3 and abs(noisy.std() / 12.75 - 1) < 0.03
    assert apply_operation(np.full((9, 9), 255, np.uint8), "Noise", 1.0, bits=1).max() == 255


def test_cutout_fills_a_square_about_a_pixel():
    image = np.zeros((40, 40), np.uint8)
    areas = []
    for number in range(500):
        bits = int(np.random.default_rng(number).integers(0, 2**64, dtype=np.uint64))
        cut = apply_operation(image, "Cutout", 0.5, bits=bits, fill=9)
        rows, columns = np.flatnonzero(cut.any(1)), np.flatnonzero(cut.any(0))
        block = cut[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (block == 9).all() and (cut != 0).sum() == block.size
        assert 9 <= len(rows) <= 20 and 9 <= len(columns) <= 20
        areas.append(block.size)
    # A side of 20 about a uniform place of 40 keeps on average 20 - 2 * 10 / 8 * 2 = 17.5 lines.
    assert abs(np.mean(areas) - 17.5**2) < 6
    assert not image.any()


# ---- what chance decides -------------------------------------------------------------------------


def drawn(count=20_000, size=331, **settings):
    return draw_augmentations(AugmentationConfig(**settings), 3, np.arange(count), size)


def test_randaugment_draws_every_operation_as_often():
    draws = drawn(manual=False, policy="randaugment", policy_operations=4, policy_magnitude=8)
    assert draws.operations.shape == draws.amounts.shape == draws.bits.shape == (20_000, 4)
    counts = np.bincount(draws.operations.reshape(-1), minlength=len(OPERATIONS))
    assert len(RAND_AUGMENT) == 14 and (counts[14:] == 0).all()
    assert np.abs(counts[:14] - 80_000 / 14).max() < 4 * (80_000 / 14) ** 0.5
    amounts = {name: draws.amounts[draws.operations == NUMBER[name]] for name in RAND_AUGMENT}
    for name, expected in (
        ("ShearX", 0.08), ("TranslateY", 40.0), ("Rotate", 8.0), ("Brightness", 0.24),
    ):  # fmt: skip
        np.testing.assert_allclose(np.abs(amounts[name]), expected)
        assert abs((amounts[name] > 0).mean() - 0.5) < 0.03
    assert set(amounts["Posterize"]) == {7.0} and set(amounts["Solarize"]) == {187.0}
    assert set(draws.flip_horizontal) == {False} and set(draws.angle) == {0.0}


def test_trivialaugment_draws_one_operation_of_any_amount():
    draws = drawn(manual=False, policy="trivialaugment")
    assert draws.operations.shape == (20_000, 1)
    turns = draws.amounts[draws.operations == NUMBER["Rotate"]]
    assert len(np.unique(np.abs(turns))) == 31 and np.abs(turns).max() == 135
    assert abs(np.abs(turns).mean() - 67.5) < 4


def test_autoaugment_draws_pairs_with_their_probabilities():
    draws = drawn(manual=False, policy="autoaugment")
    first, second = draws.operations.T
    both = (first == NUMBER["Invert"]) & (second == NUMBER["Equalize"])
    # Two of the 25 pairs invert with .6 and then equalize always.
    assert abs(both.mean() - 2 / 25 * 0.6) < 0.006
    posterized = draws.amounts[first == NUMBER["Posterize"], 0]
    assert set(posterized) <= {4.0, 5.0, 6.0, 7.0, 8.0}


def test_strengths_are_uniform_and_come_after_the_recipe():
    draws = drawn(policy="randaugment", policy_operations=2, blur=2.0, noise=0.1, cutout=0.4)
    assert draws.operations.shape == (20_000, 5)
    for column, (name, most) in enumerate((("Blur", 2.0), ("Noise", 0.1), ("Cutout", 0.4)), 2):
        assert set(draws.operations[:, column]) == {NUMBER[name]}
        share = draws.amounts[:, column] / most
        assert abs(share.mean() - 0.5) < 0.01 and abs(share.std() - 12**-0.5) < 0.005
    assert len(np.unique(draws.bits[:, 3])) == 20_000
    only = drawn(noise=0.1)
    np.testing.assert_array_equal(only.amounts[:, 0], draws.amounts[:, 3])
    assert draws.flip_horizontal.mean() == only.flip_horizontal.mean() != 0


def test_operations_follow_the_resize_in_their_order():
    images = [smooth_image(40, 60), smooth_image(90, 33, 1)]
    amounts = np.array([[12.0, 5.0, 0.4], [90.0, 3.0, -0.5]])
    numbers = np.array([[NUMBER[n] for n in ("Rotate", "Posterize", "Contrast")]] * 2)
    plain = no_draws(2)
    draws = plain._replace(operations=numbers, amounts=amounts, bits=np.zeros((2, 3), np.uint64))
    out, resized = np.zeros((2, 48, 48), np.uint8), np.zeros((2, 48, 48), np.uint8)
    render(images, 48, draws, list(out))
    render(images, 48, plain, list(resized))
    for place, fill in enumerate(border_medians(images).tolist()):
        expected = resized[place]
        for number, amount in zip(numbers[place], amounts[place], strict=True):
            expected = apply_operation(expected, OPERATIONS[number], amount, 0, fill)
        np.testing.assert_array_equal(out[place], expected)


def test_threads_of_opencv_do_not_matter():
    image = detailed_image(224)
    found = []
    for threads in (1, 2):
        cv2.setNumThreads(threads)
        found.append(apply_operation(image, "Rotate", 17.0, fill=FILL))
    cv2.setNumThreads(1)
    np.testing.assert_array_equal(*found)


# ---- torchvision ---------------------------------------------------------------------------------


@pytest.mark.parity
def test_operations_and_amounts_are_torchvision_s():
    """Every operation of every recipe at every amount, on the same grey image."""
    pytest.importorskip("timm_support", exc_type=ImportError)
    from torchvision.transforms import InterpolationMode, autoaugment

    image = detailed_image(112)
    spaces = {
        "randaugment": autoaugment.RandAugment()._augmentation_space(31, (112, 112)),
        "trivialaugment": autoaugment.TrivialAugmentWide()._augmentation_space(31),
        "autoaugment": autoaugment.AutoAugment()._augmentation_space(10, (112, 112)),
    }
    from plankton_jax.data import draws

    tables = {
        "randaugment": draws._narrow(31, 112),
        "trivialaugment": draws._WIDE,
        "autoaugment": draws._narrow(10, 112),
    }
    for recipe, space in spaces.items():
        expected_names = [name for name in OPERATIONS[:15] if name in space]
        assert list(space) == expected_names
        for name, (magnitudes, signed) in space.items():
            assert draws._SIGNED[NUMBER[name]] == signed
            bins = magnitudes.numel()
            ours = tables[recipe][NUMBER[name], :bins]
            np.testing.assert_allclose(ours, magnitudes.reshape(-1).numpy(), rtol=1e-6, atol=1e-6)
            for magnitude in magnitudes.reshape(-1).tolist():
                for sign in (1, -1) if signed else (1,):
                    theirs = autoaugment._apply_op(
                        Image.fromarray(image), name, sign * magnitude,
                        InterpolationMode.BILINEAR, [FILL],
                    )  # fmt: skip
                    found = apply_operation(image, name, sign * magnitude, fill=FILL)
                    assert mean_difference(found, np.asarray(theirs)) < 1, (name, magnitude)
    policy = autoaugment.AutoAugment().policies
    assert [tuple((name, p, number or 0) for name, p, number in pair) for pair in policy] == list(
        draws._AUTO_AUGMENT
    )
