"""Decoding and the fused warp, against Pillow, OpenCV's own resize and SciPy."""

import io

import chex
import cv2
import numpy as np
import pytest
from data_support import png, smooth_image
from PIL import Image
from scipy import ndimage

from plankton_jax.config import AugmentationConfig
from plankton_jax.data.draws import Draws, draw_augmentations, no_draws
from plankton_jax.data.geometry import (
    border_medians,
    decode_grey,
    render,
    resize_square,
    without_bottom,
)

NONE = AugmentationConfig(horizontal_flip=0, vertical_flip=0, rotation_degrees=0)


def rendered(
    image: np.ndarray, size: int, draws: Draws | None = None, geometry: str = "squash"
) -> np.ndarray:
    out = np.zeros((1, size, size), np.uint8)
    render([image], size, draws or no_draws(1), list(out), geometry)
    return out[0]


def draw(**values: float) -> Draws:
    """What chance might have decided for one image."""
    return no_draws(1)._replace(**{name: np.array([value]) for name, value in values.items()})


def border_median(image: np.ndarray) -> int:
    return int(border_medians([image])[0])


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def difference(a: np.ndarray, b: np.ndarray, margin: int = 0) -> int:
    inside = slice(margin, len(a) - margin)
    return int(np.abs(a.astype(int) - b)[inside, inside].max())


# ---- decoding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_grey_is_kept_and_colour_becomes_luma(kind):
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (20, 31), dtype=np.uint8)
    np.testing.assert_array_equal(decode_grey(encoded(Image.fromarray(grey), kind)), grey)
    colour = Image.fromarray(random.integers(0, 256, (20, 31, 3), dtype=np.uint8))
    assert difference(decode_grey(encoded(colour, kind)), np.asarray(colour.convert("L"))) <= 1


def test_jpeg_is_decoded_as_by_pillow():
    grey = smooth_image(50, 70)
    data = encoded(Image.fromarray(grey), "JPEG")
    assert difference(decode_grey(data), np.asarray(Image.open(io.BytesIO(data)))) <= 1


def test_sixteen_bits_are_scaled_not_clipped_nor_cut():
    levels = np.random.default_rng(0).integers(0, 65536, (16, 16), dtype=np.uint16)
    levels[0, :4] = [0, 65535, 257 * 100, 257 * 100 + 129]
    expected = np.rint(levels / 257)
    for kind in (".png", ".tif"):
        decoded = decode_grey(cv2.imencode(kind, levels)[1].tobytes())
        np.testing.assert_array_equal(decoded, expected)
    assert decoded[0, :4].tolist() == [0, 255, 100, 101]
    colour = np.repeat(levels[:, :, None], 3, axis=2)
    assert difference(decode_grey(cv2.imencode(".png", colour)[1].tobytes()), expected) <= 1


def test_transparency_is_laid_over_white():
    random = np.random.default_rng(0)
    pixels = Image.fromarray(random.integers(0, 256, (12, 9, 4), dtype=np.uint8))
    white = Image.new("RGBA", pixels.size, "white")
    expected = np.asarray(Image.alpha_composite(white, pixels).convert("L"))
    assert difference(decode_grey(encoded(pixels, "PNG")), expected) <= 1
    grey_alpha = pixels.convert("LA")
    white.alpha_composite(grey_alpha.convert("RGBA"))
    expected = np.asarray(white.convert("L"))
    assert difference(decode_grey(encoded(grey_alpha, "PNG")), expected) <= 1


def test_an_orientation_tag_is_ignored():
    image = Image.fromarray(smooth_image(20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    assert decode_grey(file.getvalue()).shape == (20, 40)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(data):
    with pytest.raises(ValueError, match="not a readable image"):
        decode_grey(data)


def test_other_pixels_are_refused():
    data = encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    with pytest.raises(ValueError, match="float32"):
        decode_grey(data)


# ---- resize --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 40), (64, 64), (17, 5), (1, 1)])
def test_growing_is_bilinear(shape):
    image = smooth_image(*shape) if min(shape) > 1 else np.full(shape, 9, np.uint8)
    expected = cv2.resize(image, (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(rendered(image, 64), expected)
    pillow = Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)
    assert difference(rendered(image, 64), np.asarray(pillow)) <= 1


def area_weights(length: int, size: int) -> np.ndarray:
    """How much of each of `length` pixels lies in each of `size` equal parts; rows add up to 1."""
    edges = np.arange(size + 1) * length / size
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.maximum(covered, 0) * size / length


@pytest.mark.parametrize("shape", [(128, 192), (97, 75), (640, 64)])
def test_shrinking_is_by_area(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = area_weights(shape[0], 64) @ image @ area_weights(shape[1], 64).T
    assert np.abs(resize_square(image, 64) - expected).max() <= 0.51
    np.testing.assert_array_equal(rendered(image, 64), resize_square(image, 64))


def test_one_axis_may_shrink_while_the_other_grows():
    image = np.random.default_rng(0).integers(0, 256, (20, 256), dtype=np.uint8)
    narrow = image.reshape(20, 64, 4).mean(axis=2)
    expected = cv2.resize(narrow.astype(np.float32), (64, 64), interpolation=cv2.INTER_LINEAR)
    assert np.abs(rendered(image, 64) - expected).max() <= 1.5


@pytest.mark.parametrize("shape", [(30, 120), (121, 40), (64, 64), (7, 200)])
def test_padding_keeps_the_aspect_ratio_and_fills_with_the_border_s_median(shape):
    image = smooth_image(*shape)
    side, median = max(shape), int(np.median(np.concatenate(border(image)) + 0.1))
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    margins = ((top, side - shape[0] - top), (left, side - shape[1] - left))
    expected = resize_square(np.pad(image, margins, constant_values=border_median(image)), 64)
    np.testing.assert_array_equal(rendered(image, 64, geometry="pad"), expected)
    assert abs(border_median(image) - median) <= 1
    # The warp puts it in the same place: next to no rotation is next to no change.
    warped = rendered(image, 64, draw(angle=1e-6), geometry="pad")
    assert np.abs(warped.astype(int) - expected).mean() < 1


@pytest.mark.parametrize("shape", [(30, 20), (64, 64), (121, 40)])
def test_small_images_keep_their_size_and_large_ones_shrink(shape):
    image = smooth_image(*shape)
    side = max(*shape, 64)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    margins = ((top, side - shape[0] - top), (left, side - shape[1] - left))
    expected = resize_square(np.pad(image, margins, constant_values=border_median(image)), 64)
    found = rendered(image, 64, geometry="preserve_size")
    np.testing.assert_array_equal(found, expected)
    if side == 64:  # every pixel as it was
        np.testing.assert_array_equal(found[top : top + shape[0], left : left + shape[1]], image)
    warped = rendered(image, 64, draw(angle=1e-6), geometry="preserve_size")
    assert np.abs(warped.astype(int) - expected).mean() < 1


def test_lines_at_the_bottom_are_cut_off():
    image = smooth_image(40, 30)
    np.testing.assert_array_equal(without_bottom(image, 31), image[:9])
    for lines in (0, 40, 99):
        assert without_bottom(image, lines) is image


def border(image: np.ndarray) -> tuple[np.ndarray, ...]:
    return image[0], image[-1], image[1:-1, 0], image[1:-1, -1]


@pytest.mark.parametrize("angle", [30.0, 90.0])
def test_a_padded_image_turns_without_losing_its_ends(angle):
    image = smooth_image(20, 60)
    square = Image.fromarray(
        np.pad(image, ((20, 20), (0, 0)), constant_values=border_median(image))
    )
    expected = square.rotate(angle, Image.Resampling.BICUBIC, fillcolor=border_median(image))
    for after in (False, True):
        found = rendered(image, 60, draw(angle=angle, after_resize=after), geometry="pad")
        assert np.abs(found.astype(int) - expected).mean() < 1.5


# ---- flips, turns, rotation ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 60), (200, 90)])
def test_flips_and_quarter_turns_are_exact(shape):
    image = smooth_image(*shape)
    plain = rendered(image, 64)
    np.testing.assert_array_equal(rendered(image, 64, draw(flip_horizontal=True)), plain[:, ::-1])
    np.testing.assert_array_equal(rendered(image, 64, draw(flip_vertical=True)), plain[::-1])
    for turns in range(4):
        turned = rendered(image, 64, draw(quarter_turns=turns))
        np.testing.assert_array_equal(turned, np.rot90(plain, turns))


@pytest.mark.parametrize("angle", [10.0, 45.0, 90.0, 133.0, 180.0])
@pytest.mark.parametrize(("shape", "size"), [((60, 60), 60), ((40, 70), 100), ((300, 420), 64)])
def test_rotation_is_about_the_centre_counter_clockwise_then_squashed(angle, shape, size):
    """Pillow rotates in the image's own frame and resizes afterwards, as the report's recipe."""
    image = smooth_image(*shape)
    median = border_median(image)
    turned = Image.fromarray(image).rotate(angle, Image.Resampling.BICUBIC, fillcolor=median)
    expected = np.asarray(turned.resize((size, size), Image.Resampling.BOX if size < 65 else 2))
    scipy_turned = ndimage.rotate(
        image.astype(float), angle, reshape=False, order=1, mode="constant", cval=median
    )
    found = rendered(image, size, draw(angle=angle))
    far = outside_of_frame(shape, size, angle)
    assert np.abs(found.astype(int) - expected)[~far].max() <= 8
    assert np.abs(found.astype(int) - expected)[~far].mean() < 1
    if shape == (size, size):
        assert np.abs(found - scipy_turned)[~far].max() <= 1.5


@pytest.mark.parametrize("angle", [20.0, 90.0, 133.0])
def test_rotation_after_the_resize_turns_the_square(angle):
    """Nothing of a long image is lost but the corners: Pillow resizes first and rotates then."""
    image = smooth_image(30, 120)
    square = Image.fromarray(resize_square(image, 64))
    expected = square.rotate(angle, Image.Resampling.BICUBIC, fillcolor=border_median(image))
    found = rendered(image, 64, draw(angle=angle, after_resize=True))
    inside = ~outside_of_frame((64, 64), 64, angle)
    assert np.abs(found.astype(int) - expected)[inside].max() <= 8
    turned = rendered(image, 64, draw(angle=90, after_resize=True, flip_horizontal=True))
    expected = rendered(image, 64, draw(quarter_turns=1, flip_horizontal=True))
    assert difference(turned, expected, margin=3) <= 4


def outside_of_frame(shape: tuple[int, int], size: int, angle: float) -> np.ndarray:
    """Where a rotated image's edge comes within some pixels, which references draw otherwise."""
    inner = np.zeros(shape, np.uint8)
    inner[4:-4, 4:-4] = 255
    whole = Image.fromarray(inner).rotate(angle, Image.Resampling.BILINEAR, fillcolor=0)
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR)) < 255


def test_flips_come_before_the_rotation():
    image = smooth_image(50, 50)
    for flips in ({"flip_horizontal": True}, {"flip_vertical": True}):
        flipped = image[:, ::-1] if "flip_horizontal" in flips else image[::-1]
        expected = rendered(np.ascontiguousarray(flipped), 64, draw(angle=30))
        assert difference(rendered(image, 64, draw(angle=30, **flips)), expected) <= 1


def test_corners_are_filled_with_the_median_of_the_border():
    image = np.full((40, 40), 30, np.uint8)
    image[0], image[:, 0], image[-1, 5:] = 200, 200, 200
    image[10:30, 10:30] = 90
    assert border_median(image) == np.median(
        np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    )
    corners = rendered(image, 40, draw(angle=45))[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 200).all()


def test_scale_and_shift_move_the_square():
    image = smooth_image(60, 60)
    plain = rendered(image, 60)
    shifted = rendered(image, 60, draw(shift_right=0.1, shift_down=-0.2))
    assert difference(shifted[:48, 6:], plain[12:, :54]) <= 1
    turned = rendered(image, 60, draw(shift_right=0.1, shift_down=-0.2, quarter_turns=1))
    assert difference(turned[:48, 6:], np.rot90(plain)[12:, :54]) <= 1
    doubled = rendered(image, 60, draw(scale=2.0))
    expected = cv2.resize(image[15:45, 15:45], (60, 60))
    assert difference(doubled, expected, margin=2) <= 2


@pytest.mark.parametrize("shape", [(600, 900), (60, 800), (140, 100), (1000, 1000)])
@pytest.mark.parametrize("angle", [3.0, 45.0, 90.0])
def test_rotating_a_large_image_does_not_alias(shape, angle):
    """White noise becomes quieter by the root of the number of pixels that make one."""
    noise = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8) * 255
    centre = rendered(noise, 60, draw(angle=angle))[26:34, 28:32].astype(float)
    averaged = max(shape[0] / 60, 1) * max(shape[1] / 60, 1)
    assert abs(centre.mean() - 127.5) < 20
    assert centre.std() < 1.3 * 127.5 / averaged**0.5 + 1


def test_brightness_and_contrast():
    image = smooth_image(64, 64)
    brighter = rendered(image, 64, draw(brightness=0.1))
    np.testing.assert_array_equal(brighter, np.clip(np.rint(image + 25.5), 0, 255))
    sharper = rendered(image, 64, draw(contrast=1.5))
    expected = (image - image.mean()) * 1.5 + image.mean()
    assert np.abs(sharper - np.clip(expected, 0, 255)).max() <= 0.51


# ---- what chance decides -------------------------------------------------------------------------


def test_draws_depend_on_seed_and_position_alone():
    config = AugmentationConfig(scale_jitter=0.2, shift=0.1, brightness=0.1, contrast=0.1)
    whole = draw_augmentations(config, 3, np.arange(100), 64)
    chex.assert_trees_all_equal(
        whole.take(np.arange(40, 60, 2)), draw_augmentations(config, 3, np.arange(40, 60, 2), 64)
    )
    assert (whole.angle != draw_augmentations(config, 4, np.arange(100), 64).angle).all()
    assert len({tuple(values) for values in zip(*whole[:10], strict=True)}) == 100


def test_draws_have_the_given_ranges():
    config = AugmentationConfig(
        horizontal_flip=0.3,
        vertical_flip=0.7,
        rotation_degrees=90,
        quarter_turns=True,
        scale_jitter=0.5,
        shift=0.1,
        brightness=0.2,
        contrast=0.4,
    )
    draws = draw_augmentations(config, 0, np.arange(20_000), 64)
    columns = draws._asdict()
    assert abs(columns["flip_horizontal"].mean() - 0.3) < 0.015
    assert abs(columns["flip_vertical"].mean() - 0.7) < 0.015
    assert np.abs(np.bincount(columns["quarter_turns"]) - 5000).max() < 250
    for name, low, high in (
        ("angle", 0, 90),
        ("shift_right", -0.1, 0.1),
        ("shift_down", -0.1, 0.1),
        ("brightness", -0.2, 0.2),
        ("contrast", 0.6, 1.4),
    ):
        values = (columns[name] - low) / (high - low)
        assert values.min() >= 0 and values.max() <= 1
        assert abs(values.mean() - 0.5) < 0.01 and abs(values.std() - 12**-0.5) < 0.005
    logs = np.log(columns["scale"])
    assert np.abs(logs).max() <= 0.5 and abs(logs.std() - 12**-0.5) < 0.005


def test_the_frame_of_the_rotation_is_the_setting():
    for frame, after in (("image", False), ("square", True)):
        config = AugmentationConfig(rotation_frame=frame)
        assert set(draw_augmentations(config, 0, np.arange(9), 64).after_resize) == {after}


def test_nothing_to_draw_changes_nothing():
    draws = draw_augmentations(NONE, 0, np.arange(50), 64)
    chex.assert_trees_all_equal(draws, no_draws(50))
    image = png(smooth_image(30, 30))
    np.testing.assert_array_equal(
        rendered(decode_grey(image), 64, draws.take(np.arange(1))), rendered(decode_grey(image), 64)
    )


def test_images_rendered_together_are_those_rendered_alone():
    random = np.random.default_rng(0)
    shapes = [(40, 60), (300, 420), (20, 256), (1, 1), (64, 64), (9, 2), (700, 90), (33, 33)]
    images = [random.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    config = AugmentationConfig(
        quarter_turns=True, scale_jitter=0.3, shift=0.1, brightness=0.1, contrast=0.1
    )
    draws = draw_augmentations(config, 0, np.arange(len(images)), 64)
    draws.angle[[2, 4]] = draws.shift_right[[2, 4]] = draws.shift_down[[2, 4]] = 0
    draws.scale[[2, 4]] = 1
    draws.brightness[3], draws.contrast[3] = 0, 1
    assert draws.are_symmetries().sum() == 2
    for geometry in ("squash", "pad", "preserve_size"):
        together = np.zeros((len(images), 48, 48), np.uint8)
        render(images, 48, draws, list(together), geometry)
        for place, image in enumerate(images):
            alone = rendered(image, 48, draws.take(np.array([place])), geometry)
            np.testing.assert_array_equal(together[place], alone)
