"""Reading image files for training, by OpenCV where it reads them as ``read_image`` does.

``benchmarks/training.py`` has its time beside torchvision's and Pillow's.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from minia.data.files import UnreadableImageError, open_file
from minia.data.reading import MAX_PIXELS, check_pixels, read_image

_EIGHT_BIT_SUFFIXES = (".jpg", ".jpeg", ".bmp", ".webp")  # OpenCV reads them as Pillow does


def decode_image(path: Path) -> NDArray[np.uint8]:
    """An image file as RGB, (height, width, 3) uint8: ``read_image``, faster for common files.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated or not an image.
    """
    if path.suffix.lower() in _EIGHT_BIT_SUFFIXES:
        try:
            with open_file(path) as stream:
                check_pixels(stream, MAX_PIXELS)
                content = stream.read()
        except (OSError, ValueError, UnreadableImageError):
            return read_image(path)  # which tells a missing file from a machine's trouble
        # OpenCV fills the missing end of a cut JPEG with grey and says nothing
        whole = not content.startswith(b"\xff\xd8") or content.rstrip(b"\0").endswith(b"\xff\xd9")
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) if content and whole else None
        if decoded is not None:
            return np.asarray(decoded, dtype=np.uint8)
    return read_image(path)


def to_square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize to (side, side, 3), the aspect not kept, as the original does."""
    if image.shape[:2] == (side, side):
        return image
    method = cv2.INTER_AREA if side < max(image.shape[:2]) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=method), dtype=np.uint8)
