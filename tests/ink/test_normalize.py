import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from support.pictures import encoded, seven

from inkdigits.errors import (
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.ink import normalize as preprocessing
from inkdigits.ink.decode import Limits
from inkdigits.ink.normalize import preprocess


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def difference_but_for_a_pixel(a: np.ndarray, b: np.ndarray) -> float:
    """The least over shifts by one pixel, which rounding the centre of mass may cause."""
    moved = [np.roll(a, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return min(difference(one, b) for one in moved)


def with_alpha(ink: Image.Image, colour: int) -> Image.Image:
    """Ink of one colour whose alpha is where the ink is."""
    flat = Image.new("L", ink.size, colour)
    return Image.merge("LA", (flat, ink))


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return preprocess(encoded(seven()))


def inverted(image: Image.Image) -> Image.Image:
    return Image.eval(image, lambda value: 255 - value)


def test_ink_fills_20_pixels_and_its_centre_of_mass_is_in_the_middle(reference):
    rows, columns = np.nonzero(reference > 25)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (20, 21)
    mass = reference.astype(float) / reference.sum()
    assert abs((mass.sum(axis=1) * np.arange(28)).sum() - 14) <= 0.5
    assert abs((mass.sum(axis=0) * np.arange(28)).sum() - 14) <= 0.5
    assert reference.max() == 255


def test_canonical_ink_comes_out_as_itself(digits):
    for ink in digits[0][::10]:
        assert difference(preprocess(encoded(Image.fromarray(ink))), ink) < 0.6


@pytest.mark.mnist
def test_mnist_comes_out_as_itself(mnist_test):
    inks = mnist_test[0][::10]
    # A few in 10,000 don't fill 20 pixels or sit between two centres.
    assert np.mean([np.array_equal(preprocess(ink), ink) for ink in inks]) >= 0.995


@pytest.mark.mnist
def test_enlarged_mnist_comes_out_close_to_itself(mnist_test):
    changes = []
    for ink in mnist_test[0][::100]:
        large = Image.fromarray(ink).resize((280, 280), Image.Resampling.BICUBIC)
        changes.append(difference_but_for_a_pixel(preprocess(encoded(large)), ink))
    assert np.mean(changes) < 6.5  # resampling there and back with exact boxes costs 3.5


def test_white_ink_on_black_reads_like_black_ink_on_white(reference):
    assert np.array_equal(preprocess(encoded(inverted(seven()))), reference)


@pytest.mark.parametrize("colour", [0, 255])
def test_transparent_drawing_reads_like_an_opaque_one(reference, colour):
    drawing = with_alpha(inverted(seven()), colour)
    assert np.array_equal(preprocess(encoded(drawing)), reference)
    assert np.array_equal(preprocess(encoded(drawing.convert("RGBA"))), reference)


def test_coloured_ink_on_transparency_is_ink():
    ink = inverted(seven())
    red = Image.merge("RGBA", (*Image.new("RGB", ink.size, (220, 30, 30)).split(), ink))
    assert difference(preprocess(red), preprocess(seven())) < 1


def test_card_with_transparent_corners_is_read_by_its_own_ink(reference):
    card = Image.new("LA", (240, 240), (0, 0))
    card.paste(Image.merge("LA", (seven(), Image.new("L", (200, 200), 255))), (20, 20))
    assert difference(preprocess(encoded(card)), reference) < 1


def test_polarity_comes_from_the_border_not_from_the_mean():
    thick = Image.new("L", (100, 100), 0)
    ImageDraw.Draw(thick).line([(50, 12), (50, 88)], fill=255, width=70)
    assert np.asarray(thick).mean() > 127
    ink = preprocess(encoded(thick))
    assert ink[14, 14] == 255
    assert ink[0, 0] == 0


@pytest.mark.parametrize("position", [(0, 0), (100, 0), (0, 400), (400, 400), (13, 277)])
def test_place_in_the_picture_does_not_matter(reference, position):
    page = Image.new("L", (600, 600), 255)
    page.paste(seven(), position)
    assert difference(preprocess(encoded(page)), reference) < 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"])
def test_every_mode_reads_alike(reference, mode):
    image = seven()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        assert image.mode == "I;16"
    elif mode == "LA":
        image = Image.merge("LA", (image, Image.new("L", image.size, 255)))
    else:
        image = image.convert(mode)
    assert difference(preprocess(image), reference) < 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_format_reads_alike(reference, kind):
    assert difference(preprocess(encoded(seven(), kind)), reference) < 3


def test_16_bit_png_reads_like_8_bit(reference):
    wide = Image.fromarray(np.asarray(seven()).astype(np.uint16) * 257)
    assert difference(preprocess(encoded(wide)), reference) < 1


def test_floats_from_0_to_1_read_like_bytes(reference):
    floats = Image.fromarray(np.asarray(seven()).astype(np.float32) / 255)
    assert difference(preprocess(encoded(floats, "TIFF")), reference) < 1


def test_samples_of_more_than_16_bits_are_refused_with_their_range():
    wide = Image.fromarray(np.full((20, 20), 70_000, np.int32))
    with pytest.raises(UnsupportedImageError, match="70000"):
        preprocess(wide)


def test_first_frame_of_an_animation_is_read(reference):
    content = encoded(
        seven(), "GIF", save_all=True, append_images=[Image.new("L", (200, 200), 255)]
    )
    assert difference(preprocess(content), reference) < 3


@pytest.mark.parametrize(("orientation", "turn"), [(6, 90), (3, 180), (8, 270)])
def test_photo_held_sideways_is_turned_upright(reference, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    sideways = seven().rotate(turn, expand=True)
    assert difference(preprocess(encoded(sideways, "JPEG", exif=exif)), reference) < 3


def test_faint_pencil_is_as_dark_as_marker_in_the_end(reference):
    faint = Image.eval(seven(), lambda value: 200 + value * 40 // 255)
    assert difference(preprocess(encoded(faint)), reference) < 2


def test_narrow_digit_keeps_its_width():
    one = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(one).rectangle([95, 20, 104, 179], fill=0)  # 10 wide, 160 high
    ink = preprocess(encoded(one)).astype(float)
    assert ink.sum() / 255 == pytest.approx(20 * 10 * 20 / 160, rel=0.1)


@pytest.mark.parametrize(
    "blank",
    [
        Image.new("L", (28, 28), 0),
        Image.new("L", (280, 280), 255),
        Image.new("RGB", (300, 200), (40, 120, 90)),
        Image.new("RGBA", (100, 100), (0, 0, 0, 0)),
        Image.new("L", (1, 1), 128),
        Image.fromarray(np.random.default_rng(0).normal(230, 3, (200, 200)).astype(np.uint8)),
    ],
    ids=["black", "white", "coloured", "transparent", "one pixel", "noisy paper"],
)
def test_blank_picture_has_no_ink(blank):
    assert not preprocess(encoded(blank)).any()


def test_digit_on_noisy_paper_is_read(reference):
    noise = np.random.default_rng(0).normal(0, 6, (200, 200))
    page = np.clip(np.asarray(seven()) * 0.8 + 20 + noise, 0, 255).astype(np.uint8)
    assert difference(preprocess(page), reference) < 6


def test_very_large_picture_of_a_small_digit_is_read():
    page = Image.new("L", (4000, 3000), 255)
    page.paste(seven(400, 40), (1800, 900))
    assert difference_but_for_a_pixel(preprocess(page), preprocess(seven(400, 40))) < 6


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds no pixel."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e"


@pytest.mark.parametrize("size", [(7072, 7072), (10_000, 10_000), (60_000, 60_000)])
def test_decompression_bomb_is_refused_before_it_is_decoded(size):
    # There is nothing to decode: if decoding were tried the error would be another one.
    with pytest.raises(ImageTooLargeError, match="25,000,000"):
        preprocess(png_header(*size))


def test_too_many_bytes_are_refused_with_the_limit(tmp_path):
    content = encoded(seven(), "BMP")
    limits = Limits(max_bytes=len(content) - 1)
    with pytest.raises(ImageTooLargeError, match=f"{limits.max_bytes:,}"):
        preprocess(content, limits)
    path = tmp_path / "seven.bmp"
    path.write_bytes(content)
    with pytest.raises(ImageTooLargeError, match=r"seven\.bmp"):
        preprocess(path, limits)


def test_limit_on_pixels_holds_for_arrays_and_pillow_images_too():
    limits = Limits(max_pixels=100)
    with pytest.raises(ImageTooLargeError):
        preprocess(np.zeros((11, 10), np.uint8), limits)
    with pytest.raises(ImageTooLargeError):
        preprocess(Image.new("L", (11, 10)), limits)


@pytest.mark.parametrize(
    "content",
    [b"", b"not a picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n"],
)
def test_bytes_that_are_no_picture_are_refused(content):
    with pytest.raises(UnreadableImageError):
        preprocess(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_truncated_picture_is_refused(kind):
    content = encoded(seven(), kind)
    with pytest.raises(UnreadableImageError):
        preprocess(content[: len(content) * 2 // 3])


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"nowhere\.png"):
        preprocess(tmp_path / "nowhere.png")


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((28, 28), np.float32), "uint8"),
        (np.zeros((28,), np.uint8), "28"),
        (np.zeros((28, 28, 2), np.uint8), "28, 28, 2"),
        (np.zeros((0, 28), np.uint8), "0, 28"),
    ],
)
def test_array_of_another_kind_is_refused_with_what_it_is(array, problem):
    with pytest.raises(UnsupportedImageError, match=problem):
        preprocess(array)


def test_something_else_is_refused_with_its_type():
    with pytest.raises(UnsupportedImageError, match="int"):
        preprocess(7)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(max_examples=200, deadline=None)
def test_any_array_becomes_ink(array):
    ink = preprocess(array)
    assert ink.shape == (28, 28)
    assert ink.dtype == np.uint8
    # Fainter ink than the limit counts as blank; anything stronger must not get lost.
    if np.ptp(array) < preprocessing.MIN_CONTRAST:
        assert not ink.any()


VALID = [encoded(seven(40, 4), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")]


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=400, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_damaged_picture_is_read_or_refused_and_nothing_else(content, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        ink = preprocess(bytes(damaged))
    except ImageError:
        return
    assert ink.shape == (28, 28)


def test_standardised_ink_has_the_mean_and_deviation_removed():
    inks = np.stack([np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)])
    batch = preprocessing.standardise(inks)
    assert batch.shape == (2, 1, 28, 28)
    assert batch.dtype == np.float32
    assert batch[0, 0, 0, 0] == pytest.approx(-0.1307 / 0.3081)
    assert batch[1, 0, 0, 0] == pytest.approx((1 - 0.1307) / 0.3081)


def photo_of(ink: Image.Image, light: np.ndarray, noise: float = 3.0, paper: float = 235.0):
    """A 7 in black on white, as a photo of (200, 200) in that light."""
    covered = 1 - np.asarray(ink, dtype=float) / 255
    surface = (paper * (1 - covered) + 40 * covered) * light
    surface += np.random.default_rng(5).normal(0, noise, surface.shape)
    return np.clip(np.rint(surface), 0, 255).astype(np.uint8)


def gradient() -> np.ndarray:
    return np.add.outer(np.linspace(0.45, 0.7, 200), np.linspace(0, 0.3, 200))


def vignette() -> np.ndarray:
    place = np.square(np.linspace(-1, 1, 200))
    return 1 - 0.3 * np.add.outer(place, place)


def shadow() -> np.ndarray:
    light = np.ones((200, 200))
    light[:, 120:] = 0.55
    return light


LIGHTS = {"gradient": gradient, "vignette": vignette, "shadow": shadow}


@pytest.mark.parametrize("light", LIGHTS)
def test_photo_in_uneven_light_is_read(reference, light):
    picture = photo_of(seven(), LIGHTS[light]())
    assert difference_but_for_a_pixel(preprocess(picture), reference) < 8


@pytest.mark.parametrize("light", LIGHTS)
def test_light_alone_is_blank(light):
    white = Image.new("L", (200, 200), 255)
    for noise in (0.0, 1.5, 4.0):
        assert not preprocess(photo_of(white, LIGHTS[light](), noise)).any()


def ruled(image: Image.Image, squared: bool) -> Image.Image:
    lines = Image.new("L", image.size, 255)
    draw = ImageDraw.Draw(lines)
    for at in range(17, 200, 33):
        draw.line([(0, at), (200, at + 3)], fill=150, width=2)
        if squared:
            draw.line([(at, 0), (at - 3, 200)], fill=150, width=2)
    return ImageChops.darker(lines, image)


@pytest.mark.parametrize("squared", [False, True], ids=["ruled", "squared"])
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_printed_lines_are_not_read(reference, squared, noise):
    light = np.ones((200, 200)) if noise == 0.0 else gradient()
    white = ruled(Image.new("L", (200, 200), 255), squared)
    assert not preprocess(photo_of(white, light, noise)).any()
    picture = photo_of(ruled(seven(), squared), light, noise)
    assert difference_but_for_a_pixel(preprocess(picture), reference) < 12


def test_specks_and_a_frame_do_not_move_the_digit(reference):
    dirty = seven()
    draw = ImageDraw.Draw(dirty)
    draw.rectangle([12, 10, 188, 190], outline=60, width=2)
    for place in [(3, 4), (195, 30), (30, 180), (150, 20)]:
        draw.ellipse([*place, place[0] + 2, place[1] + 2], fill=0)
    assert difference(preprocess(dirty), reference) < 2


def test_two_digits_stay_two():
    page = Image.new("L", (400, 200), 255)
    page.paste(seven(), (0, 0))
    page.paste(seven(), (190, 0))
    ink = preprocess(page)
    assert (ink.max(axis=0) > 100).any()
    assert np.count_nonzero(np.diff((ink.max(axis=0) > 60).astype(int)) == 1) == 2


@pytest.mark.parametrize("size", [8, 16, 100])
@pytest.mark.parametrize("light_on_dark", [False, True])
def test_digit_that_fills_the_picture_keeps_its_polarity(size, light_on_dark):
    grid = np.zeros((8, 8), np.uint8)
    grid[0] = grid[7] = grid[:, 7] = grid[3:5, 2:] = 255
    grid[0, 0] = grid[7, 0] = grid[0, 7] = 0  # ink on 19 of the border's 28 pixels
    picture = np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.NEAREST))
    ink = preprocess(picture if light_on_dark else 255 - picture)
    assert ink[:, 12:].max(axis=1)[6:22].min() > 90  # the stem on the right
    assert ink[9, 8] < 60  # paper between the bars


def test_uneven_light_is_removed_from_a_small_picture():
    digit = np.zeros((28, 28))
    digit[5:23, 13:16] = digit[5:8, 9:16] = 1
    paper = np.add.outer(np.linspace(100, 150, 28), np.linspace(0, 70, 28))
    ink = preprocess(np.rint(paper * (1 - 0.7 * digit)).astype(np.uint8))
    assert difference_but_for_a_pixel(ink, preprocess((digit * 255).astype(np.uint8))) < 6


@pytest.mark.parametrize("low", [190, 225])
def test_a_slope_of_light_that_saturates_is_blank(low):
    slope = np.add.outer(np.linspace(low, 265, 30), np.linspace(0, 30, 30))
    assert not preprocess(np.clip(slope, 0, 255).astype(np.uint8)).any()


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(41, 70), st.integers(3, 70))),
    st.integers(0, 20),
)
@settings(max_examples=60, deadline=None)
def test_any_larger_array_becomes_ink(array, blur):
    if blur > 10:
        array = np.asarray(Image.fromarray(array).filter(ImageFilter.GaussianBlur(blur - 10)))
    ink = preprocess(array)
    assert ink.shape == (28, 28)
    assert ink.dtype == np.uint8


@given(st.integers(0, 2**32), st.integers(1, 90), st.booleans())
@settings(max_examples=60, deadline=None)
def test_leaving_out_clean_paper_changes_nothing(seed, size, dark):
    random = np.random.default_rng(seed)
    page = np.full((size + 40, size + 60), 255 if dark else 0, np.uint8)
    top, left = random.integers(1, 39), random.integers(1, 59)
    page[top : top + size, left : left + size] = random.integers(0, 256, (size, size))
    found = preprocessing.extract_ink(page)
    whole = preprocessing.Difference.of_all(found.complete())
    assert np.array_equal(preprocessing.normalise(found), preprocessing.normalise(whole))
