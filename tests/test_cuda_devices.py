"""What runs on a GPU makes no tensor elsewhere: checked without one, by tensors that know their device alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from test_delf import small_network
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from minia.data.labelled.augmentation import NUM_DRAWS, augment, validation_view
from minia.data.labelled.settings import Augmentation
from minia.models.delf.local_features import LocalFeatures, prepare
from minia.models.delf.network import losses
from minia.training.measures import attention_statistics

SYMMETRY = Augmentation(
    image_size=64, view=0.5, rotate=True, flip=True, scale=1.15, shift=0.05, brightness=0.1, colour=0.05
)
ORIGINAL = Augmentation(
    image_size=64, crop_area=0.1, crop_aspect=1.33, move_probability=0.3, filter_probability=0.3, supersample=2
)

pytestmark = pytest.mark.skipif(
    not torch.backends.cuda.is_built(),
    reason="this torch has no CUDA build (it is for the CPU alone), so its tensors cannot say device=cuda",
)


@contextlib.contextmanager
def without_numbers() -> Iterator[None]:
    """Tensors have a shape, a type and a device alone, and those of two devices cannot meet."""
    with FakeTensorMode():
        with pytest.raises(RuntimeError, match="on the same device"):
            torch.ones(3, device="cuda") + torch.ones(3)
        yield


def on_cuda(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
        for name, tensor in module.state_dict(keep_vars=True).items()
    }


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_extraction(kind: torch.dtype) -> None:
    local = LocalFeatures(small_network().eval())
    prepare(local, "cpu", kind)
    with without_numbers():
        images = torch.empty(2, 96, 128, 3, dtype=torch.uint8, device="cuda").permute(0, 3, 1, 2)
        masks = torch.ones(2, 96, 128, dtype=torch.bool, device="cuda")
        chosen = functional_call(local, on_cuda(local), (images, masks, [0.5, 1.0], 10, 1.0, 50.0, 1.0))
        assert {(tensor.device.type, tensor.dtype) for tensor in chosen} == {("cuda", torch.float32)}


@pytest.mark.parametrize("augmentation", [SYMMETRY, ORIGINAL])
def test_augmentation(augmentation: Augmentation) -> None:
    with without_numbers():
        images = torch.empty(2, 4, 200, 200, dtype=torch.uint8, device="cuda")
        numbers = torch.empty(2, NUM_DRAWS, device="cuda")
        for result in (augment(images, numbers, augmentation), validation_view(images, augmentation)):
            assert (result.device.type, result.shape) == ("cuda", (2, 3, 64, 64))


def test_training_step_and_its_figures() -> None:
    network = small_network().train()
    with without_numbers():
        images = torch.empty(2, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)
        output = functional_call(network, on_cuda(network), (images, True))
        parts = losses(output, torch.zeros(2, dtype=torch.int64, device="cuda"))
        figures = attention_statistics(output.attention)
        assert {tensor.device.type for tensor in (*output, *parts.values(), *figures.values())} == {"cuda"}
