from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from astropy.io import fits
from conftest import draw_blobs
from PIL import Image

from minia.data.files import UnreadableImageError
from minia.data.fits_images import read_wcs
from minia.data.labelled.decoding import decode_image
from minia.data.reading import Reading, read_image
from minia.data.stretch import to_grey_levels

SKY, NOISE = 100.0, 5.0


def sky_with_source(peak: float = 2000.0, seed: int = 0) -> np.ndarray:
    """A Gaussian source above and left of the centre on a noisy sky, (96, 128) float32; row 0 is the top."""
    rows, columns = np.mgrid[:96, :128]
    source = peak * np.exp(-((columns - 40) ** 2 + (rows - 20) ** 2) / 32)
    return np.asarray(SKY + source + np.random.default_rng(seed).normal(0, NOISE, source.shape), np.float32)


def write_fits(path: Path, *arrays: np.ndarray, names: tuple[str, ...] = ()) -> Path:
    """Write arrays whose row 0 is the top, the first into the primary HDU unless the HDUs have names."""
    flipped = [array[..., ::-1, :] for array in arrays]
    if names:
        hdus = [
            fits.PrimaryHDU(),
            *(fits.ImageHDU(array, name=name) for array, name in zip(flipped, names, strict=True)),
        ]
    else:
        hdus = [fits.PrimaryHDU(flipped[0]), *(fits.ImageHDU(array) for array in flipped[1:])]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def brightest(image: np.ndarray) -> tuple[int, int]:
    smooth = cv2.GaussianBlur(image[:, :, 1], (0, 0), 3.0)
    row, column = divmod(int(smooth.argmax()), smooth.shape[1])
    return row, column


@pytest.mark.parametrize("stretch", ["asinh", "zscale", "linear"])
@pytest.mark.parametrize("suffix", [".fits", ".fit", ".fits.gz"])
def test_fits_images_are_shown_upright_with_a_dark_sky(tmp_path: Path, suffix: str, stretch: Any) -> None:
    image = read_image(write_fits(tmp_path / f"a{suffix}", sky_with_source()), Reading(stretch=stretch))
    assert image.shape == (96, 128, 3)
    assert image.dtype == np.uint8
    row, column = brightest(image)
    assert abs(row - 20) <= 3 and abs(column - 40) <= 3
    assert image.max() == 255
    assert np.median(image) <= (130 if stretch == "zscale" else 12)


def test_compressed_tiles_are_read_and_only_them(tmp_path: Path) -> None:
    path = tmp_path / "a.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(sky_with_source()[::-1])]).writeto(path)
    assert brightest(read_image(path)) == brightest(read_image(write_fits(tmp_path / "b.fits", sky_with_source())))
    with pytest.raises(UnreadableImageError, match="128 x 96 pixels are more than"):
        read_image(path, Reading(max_pixels=100))


def test_asinh_is_astropys_and_keeps_faint_light(tmp_path: Path) -> None:
    from astropy.visualization import AsinhStretch

    values = sky_with_source()
    image = read_image(write_fits(tmp_path / "a.fits", values))[:, :, 0].astype(float)
    faint = np.hypot(*(np.mgrid[:96, :128] - np.array([20, 40])[:, None, None])).round() == 11
    linear = read_image(tmp_path / "a.fits", Reading(stretch="linear"))[:, :, 0]
    assert image[faint].mean() > 2 * (linear[faint].mean() - np.median(linear))
    white = np.percentile(values - np.median(values), 99.95)
    a = 5 * NOISE / white
    expected = 255 * AsinhStretch(a)(np.clip((values - SKY) / white, 0, 1))
    assert np.abs(image - expected).max() < 4  # sky and noise are estimated


def test_sky_alone_stays_dark() -> None:
    sky = np.random.default_rng(1).normal(SKY, NOISE, (1, 96, 96))
    assert to_grey_levels(sky, "asinh").mean() < 30
    assert not to_grey_levels(np.full((1, 9, 9), 7.0), "asinh").any()
    assert not to_grey_levels(np.full((3, 9, 9), np.nan), "asinh").any()


@pytest.mark.parametrize("stretch", ["asinh", "zscale", "linear"])
def test_pixels_without_a_value_are_background(tmp_path: Path, stretch: Any) -> None:
    values = sky_with_source()
    image = read_image(write_fits(tmp_path / "a.fits", values), Reading(stretch=stretch))
    values[60:70, 60:70] = np.nan
    values[70:75, 60:70] = np.inf
    masked = read_image(write_fits(tmp_path / "a.fits", values), Reading(stretch=stretch))
    level = masked[60:75, 60:70]
    assert np.ptp(level) == 0
    assert level.max() <= np.median(masked) + 1
    assert np.abs(masked[:50].astype(int) - image[:50]).max() <= (30 if stretch == "zscale" else 2)


def test_three_planes_and_three_hdus_are_colours_that_stay(tmp_path: Path) -> None:
    bands = np.stack([sky_with_source(peak, seed) for seed, peak in enumerate((2000, 1000, 500))])
    planes = read_image(write_fits(tmp_path / "planes.fits", bands))
    hdus = write_fits(tmp_path / "hdus.fits", *bands, names=("I", "R", "G"))
    assert np.array_equal(read_image(hdus, Reading(bands=("I", "R", "G"))), planes)
    assert np.array_equal(read_image(hdus, Reading(bands=("1", "2", "3"))), planes)
    assert np.array_equal(read_image(hdus, Reading(bands=("G", "R", "I"))), planes[:, :, ::-1])
    red, green, blue = planes[10:30, 30:50].reshape(-1, 3).max(axis=0).astype(int)
    assert red > green > blue
    assert np.array_equal(
        read_image(tmp_path / "planes.fits", Reading(bands=("0/1",))),
        read_image(write_fits(tmp_path / "one.fits", bands[1])),
    )
    one = read_image(hdus)  # of several HDUs the first: the others are often its errors and flags
    assert np.array_equal(one, read_image(hdus, Reading(bands=("I",))))


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (None, "5 planes; images.bands says which"),
        (("0",), "its HDU 0 holds 5 planes; 0/0 is the first"),
        (("0/5",), "no plane 5; it has 5"),
        (("SCI",), "no HDU SCI; it has PRIMARY"),
    ],
)
def test_bands_that_are_not_there_are_told(tmp_path: Path, bands: tuple[str, ...] | None, message: str) -> None:
    path = write_fits(tmp_path / "cube.fits", np.zeros((5, 8, 8), np.float32))
    with pytest.raises(UnreadableImageError, match=message):
        read_image(path, Reading(bands=bands))


def test_fits_without_an_image_or_cut_short_is_unreadable(tmp_path: Path) -> None:
    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "none.fits")
    with pytest.raises(UnreadableImageError, match="it holds no image"):
        read_image(tmp_path / "none.fits")
    data = write_fits(tmp_path / "a.fits", sky_with_source()).read_bytes()
    for cut in (40, 100, 2880, 20000):
        (tmp_path / "cut.fits").write_bytes(data[:cut])
        with pytest.raises(UnreadableImageError):
            read_image(tmp_path / "cut.fits")
    (tmp_path / "text.fits").write_text("no FITS")
    with pytest.raises(UnreadableImageError, match="no image of a known format"):
        read_image(tmp_path / "text.fits")


def test_integers_are_scaled_as_their_header_says(tmp_path: Path) -> None:
    values = sky_with_source()
    as_integers = fits.PrimaryHDU(np.rint(values).astype(np.uint16)[::-1])  # stored with BZERO 32768
    as_integers.writeto(tmp_path / "a.fits")
    expected = read_image(write_fits(tmp_path / "b.fits", np.rint(values)))
    assert np.array_equal(read_image(tmp_path / "a.fits"), expected)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("colours", [1, 3])
def test_sixteen_bits_are_stretched_where_their_range_is_narrow(tmp_path: Path, suffix: str, colours: int) -> None:
    values = np.rint(sky_with_source()).astype(np.uint16)  # of 65,535: by 257 the sky would be 0 and the source 8
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), values if colours == 1 else np.dstack([values] * 3))
    image = read_image(path)
    assert image.shape == (96, 128, 3)
    assert image.max() == 255
    assert np.abs(image[:, :, 0].astype(int) - read_image(write_fits(tmp_path / "a.fits", values))[:, :, 0]).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_of_colour_keep_their_levels(tmp_path: Path, suffix: str) -> None:
    image = draw_blobs(0) // np.array([1, 2, 3], np.uint8)
    image[:30] = 255
    cv2.imwrite(str(tmp_path / f"a{suffix}"), image[:, :, ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), image)


def test_images_of_too_many_pixels_are_named_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("1", (13300, 13300)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 200_000

    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    for read in (read_image, decode_image):
        with pytest.raises(UnreadableImageError, match="13300 x 13300 pixels are more than"):
            read(tmp_path / "bomb.png")


def test_training_too_checks_the_size_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minia.data.labelled.decoding.MAX_PIXELS", 100)
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("decoded"))
    Image.fromarray(draw_blobs(0)).save(tmp_path / "a.jpg")
    assert decode_image(tmp_path / "a.jpg").shape == (96, 96, 3)  # by read_image, whose limit is as it was


@pytest.mark.parametrize("read", [read_image, decode_image])
def test_pipes_and_devices_are_never_opened(tmp_path: Path, read: object) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    reasons = []

    def attempt() -> None:
        for name in ("pipe", "device", "folder"):
            try:
                read(tmp_path / f"{name}.jpg")  # type: ignore[operator]
            except UnreadableImageError as error:
                reasons.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(10)
    assert reasons == ["not a file"] * 3


def test_the_place_on_the_sky_is_the_bands(tmp_path: Path) -> None:
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [30.0, 40.0]
    wcs.wcs.cdelt = [-1e-4, 1e-4]
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(sky_with_source(), wcs.to_header(), name="SCI")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    with (tmp_path / "a.fits").open("rb") as stream:
        found = read_wcs(stream, None)
    assert found is not None
    header, height = found
    assert height == 96
    assert np.allclose(WCS(fits.Header.fromstring(header)).pixel_to_world_values(5, 7), wcs.pixel_to_world_values(5, 7))
    with write_fits(tmp_path / "plain.fits", sky_with_source()).open("rb") as stream:
        assert read_wcs(stream, None) is None
