"""What the extractors of neural networks have in common."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minia.core.context import Context
from minia.core.device import choose_device
from minia.core.threads import single_threaded_torch
from minia.models.extractors.base import Extractor, Features
from minia.models.extractors.settings import DELFSettings, PretrainedSettings


class NetworkExtractor(Extractor):
    """An extractor that runs a network on the run's device; a subclass says how, in ``extract_batch``.

    Threads may extract at once: on a GPU they take turns, so that images are read and masked while it
    works; on a CPU each has a core (``working`` sees to that), so that the result does not depend on
    how many there are.

    Attributes:
        device: ``cpu`` or ``cuda``.

    Raises:
        InputError: the device is not there.
    """

    descriptor_dtype = "float16"
    in_threads = True

    def __init__(self, settings: DELFSettings | PretrainedSettings, context: Context) -> None:
        super().__init__(num_features=settings.num_features, objects=settings.objects)
        self.batch_size = settings.batch_size
        self.device = choose_device(context.device)
        self._turn = threading.Lock()

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """See :class:`~minia.models.extractors.base.Extractor`."""
        return self.extract_batch([image])[0]

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Let torch use one thread for each thread that extracts.

        With more, the order in which they add up numbers would show in the last digits.
        """
        with single_threaded_torch():
            yield

    @contextlib.contextmanager
    def _execution(self) -> Iterator[None]:
        """On CUDA true float32, where the default rounds to 10 bits, the same kernels each time, and one thread."""
        if self.device == "cpu":
            yield
            return
        cudnn: Any = torch.backends.cudnn  # it has no types
        with self._turn, cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
