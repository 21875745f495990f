"""The DELF network: geometry, gradients, losses and pretrained weights."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from minia.core.artifact import InputError
from minia.models.delf.backbone import BACKBONES, Backbone
from minia.models.delf.keras_weights import KERAS_FILE
from minia.models.delf.network import DELF, DELFOutput, LossWeights, losses, pool_by_attention
from minia.models.delf.weights import load_backbone_weights, load_checkpoint

WINDOWS = {  # side and padding of the receptive field: the published ones, and those of the smaller networks
    ("resnet18", False): (211, 105),
    ("resnet34", False): (547, 273),
    ("resnet50", False): (267, 133),
    ("resnet50", True): (291, 145),
    ("resnet101", False): (811, 405),
    ("resnet101", True): (835, 417),
}


def small_network(seed: int = 0, **options: Any) -> DELF:
    """A resnet18 whose batch normalisation is not the identity, in evaluation mode."""
    torch.manual_seed(seed)
    arguments: dict[str, Any] = {"stride_in_1x1": False, "block3_stride": True, "attention_channels": 32, **options}
    network = DELF("resnet18", 3, **arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> DELF:
    return small_network()


def make_transparent(module: nn.Module) -> None:
    """Every pixel of a receptive field counts: one channel, positive kernels, means for maxima, no normalisation."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            shape: dict[str, Any] = {name: getattr(child, name) for name in ("kernel_size", "stride", "padding")}
            single = nn.Conv2d(1, 1, **shape, bias=False, dtype=torch.float64)
            nn.init.constant_(single.weight, 1 / single.weight.numel())
            setattr(module, name, single)
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.Identity())
        else:
            make_transparent(child)


def support(backbone: Backbone, height: int, width: int, row: int, column: int) -> list[tuple[int, int]]:
    """First and last pixel that a cell of layer3's map depends on, along y and along x."""
    image = torch.ones(1, 1, height, width, dtype=torch.float64, requires_grad=True)
    backbone.features(image)[0, :, row, column].sum().backward()
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0) > 0
    return [(int(line[0]), int(line[-1])) for line in (torch.nonzero(seen.any(1 - axis)).flatten() for axis in (0, 1))]


@pytest.mark.parametrize("block3_stride", [False, True])
@pytest.mark.parametrize(("name", "stride_in_1x1"), list(WINDOWS))
def test_window_is_what_the_gradient_reaches(name: str, stride_in_1x1: bool, block3_stride: bool) -> None:
    backbone = Backbone(name, stride_in_1x1=stride_in_1x1, block3_stride=block3_stride)
    size, stride, padding = backbone.window
    assert (size, padding) == WINDOWS[name, stride_in_1x1]
    assert stride == (32 if block3_stride else 16)
    make_transparent(backbone)
    column = padding // stride + 1  # the first whose field lies inside the image
    first, last = support(backbone, 17, stride * column + padding + 20, 0, column)[1]
    assert (first, last) == (stride * column - padding, stride * column - padding + size - 1)
    assert (first + last) / 2 == stride * column  # the padding is symmetric


def test_window_is_square() -> None:
    backbone = Backbone("resnet18", stride_in_1x1=False, block3_stride=True)
    make_transparent(backbone)
    assert support(backbone, 270, 300, 4, 5) == [(128 - 105, 128 + 105), (160 - 105, 160 + 105)]


def test_backbones_are_checked() -> None:
    with pytest.raises(InputError, match="allowed: resnet18, resnet34, resnet50, resnet101"):
        Backbone("vgg", stride_in_1x1=False, block3_stride=True)
    with pytest.raises(InputError, match="no bottlenecks"):
        Backbone("resnet18", stride_in_1x1=True, block3_stride=True)
    assert set(BACKBONES) == {name for name, _ in WINDOWS}


@pytest.mark.parametrize("block3_stride", [False, True])
def test_layer4_has_stride_32_either_way(block3_stride: bool) -> None:
    backbone = Backbone("resnet18", stride_in_1x1=False, block3_stride=block3_stride).eval()
    blocks = backbone(torch.zeros(1, 3, 70, 97))
    assert blocks[5].shape[2:] == (3, 4)
    assert blocks[4].shape[2:] == ((3, 4) if block3_stride else (5, 7))
    assert torch.equal(blocks[4], backbone.features(torch.zeros(1, 3, 70, 97)))


def gradients(network: DELF, loss: Tensor) -> dict[str, float]:
    """The largest gradient in each part of the network."""
    network.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {
        name: max(0.0 if each.grad is None else float(each.grad.abs().max()) for each in part.parameters())
        for name, part in network.named_children()
    }


def test_only_the_descriptor_loss_trains_the_backbone() -> None:
    network = small_network().train()
    images = network.normalise(torch.randint(0, 256, (2, 3, 65, 65)))
    parts = losses(network(images), torch.tensor([0, 2]))
    descriptor = gradients(network, parts["descriptor"])
    attention = gradients(network, parts["attention"])
    reconstruction = gradients(network, parts["reconstruction"])
    assert attention["backbone"] == 0
    assert reconstruction["backbone"] == 0
    assert descriptor["backbone"] > 0
    assert {name for name, value in descriptor.items() if value > 0} == {"backbone", "descriptor_classifier"}
    assert {name for name, value in attention.items() if value > 0} == {
        "attention",
        "attention_classifier",
        "reduction",
    }
    assert {name for name, value in reconstruction.items() if value > 0} == {"reduction"}


def test_attention_is_the_softplus_of_a_score(network: DELF) -> None:
    features = torch.rand(2, 256, 3, 2)
    attention = network.attention
    score = attention.conv2(torch.relu(attention.bn1(attention.conv1(features))))
    torch.testing.assert_close(attention(features), torch.log1p(score.exp()))
    assert score.min() < 0  # where anything else that is not negative would be 0


def test_pooled_vector_by_hand() -> None:
    torch.manual_seed(0)
    attention, features = torch.rand(2, 1, 2, 3), torch.randn(2, 4, 2, 3)
    expected = torch.zeros(2, 4)
    for image in range(2):
        for row in range(2):
            for column in range(3):
                feature = features[image, :, row, column]
                expected[image] += attention[image, 0, row, column] * feature / feature.norm() / 6
    torch.testing.assert_close(pool_by_attention(attention, features), expected)
    for kind in (torch.float32, torch.float16, torch.bfloat16):  # what autocast may bring
        pooled = pool_by_attention(attention.to(kind), torch.zeros(2, 4, 2, 3, dtype=kind))
        assert torch.equal(pooled, torch.zeros(2, 4))  # not NaN


def test_losses_by_hand(network: DELF) -> None:
    images, labels = network.normalise(torch.randint(0, 256, (2, 3, 65, 65))), torch.tensor([1, 2])
    output = network(images)
    parts = losses(output, labels)
    torch.testing.assert_close(parts["reconstruction"], (output.reconstruction - output.layer3).square().mean())
    torch.testing.assert_close(
        parts["attention"], -output.attention_logits.log_softmax(1)[torch.arange(2), labels].mean()
    )
    torch.testing.assert_close(parts["total"], parts["descriptor"] + parts["attention"] + 10 * parts["reconstruction"])
    torch.testing.assert_close(losses(output, labels, LossWeights(2, 0, 0))["total"], 2 * parts["descriptor"])


def test_outputs(network: DELF) -> None:
    output: DELFOutput = network(network.normalise(torch.randint(0, 256, (2, 3, 65, 90))), with_zero_fractions=True)
    assert output.descriptor_logits.shape == output.attention_logits.shape == (2, 3)
    assert output.attention.shape == (2, 1, 3, 3)
    assert output.descriptors.shape == (2, 128, 3, 3)
    assert output.layer3.shape == output.reconstruction.shape == (2, 256, 3, 3)
    assert (output.attention >= 0).all()
    assert (output.reconstruction >= 0).all()
    assert not output.layer3.requires_grad
    assert output.zero_fractions.shape == (6,)
    assert ((output.zero_fractions >= 0) & (output.zero_fractions <= 1)).all()
    torch.testing.assert_close(output.zero_fractions[4], (output.layer3 == 0).float().mean())
    assert not len(network(torch.zeros(2, 3, 65, 90)).zero_fractions)  # else a validation would take them for shares


def test_inference_equals_forward(network: DELF) -> None:
    images = network.normalise(torch.randint(0, 256, (2, 3, 65, 65)))
    output, (attention, descriptors) = network(images), network.local_features(images)
    assert torch.equal(attention, output.attention)
    assert torch.equal(descriptors, output.descriptors)


def test_normalisations() -> None:
    network = small_network()
    network.set_normalisation("original")
    grey = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(1, 3, 1, 3)
    assert network.normalise(grey)[0, 0, 0].tolist() == [-1.0, 0.0, 127 / 128]
    network.set_normalisation("imagenet")
    white = network.normalise(torch.full((1, 3, 1, 1), 255)).flatten()
    torch.testing.assert_close(white, (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225]))
    with pytest.raises(InputError, match="imagenet or original or unit or caffe"):
        network.set_normalisation("none")


def test_torch_file_loads_every_layer(tmp_path: Path) -> None:
    torch.manual_seed(1)
    resnet = torchvision.models.resnet18(weights=None)
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in resnet.state_dict().items()}}, tmp_path / "a.pth"
    )
    network = small_network()
    assert load_backbone_weights(network, str(tmp_path / "a.pth")) == []
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, resnet.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bn1.weight": None}, "leave 1 layers without weights: bn1.weight"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, "of another network"),
        ({"layer2.2.conv1.weight": torch.zeros(1)}, "of another network: resnet18 has no layer2.2.conv1.weight"),
        ({"layer1.0.conv1.weight": None}, "hold no ResNet"),
    ],
)
def test_torch_files_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    state = {**torchvision.models.resnet18(weights=None).state_dict(), **change}
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        load_backbone_weights(small_network(), str(tmp_path / "a.pth"))


def test_unknown_names_are_reported(tmp_path: Path) -> None:
    torch.save({**torchvision.models.resnet18(weights=None).state_dict(), "extra": torch.zeros(1)}, tmp_path / "a.pth")
    assert load_backbone_weights(small_network(), str(tmp_path / "a.pth")) == ["extra"]


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    network = small_network()
    with pytest.raises(InputError, match="a file that exists"):
        load_backbone_weights(network, str(tmp_path / "none.pth"))
    for content in (b"not a file of torch", b"hello\n", b""):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as plain tensors by torch: it is damaged"):
            load_backbone_weights(network, str(tmp_path / "a.pth"))
    torch.save({"module": nn.Linear(1, 1)}, tmp_path / "b.pth")  # a pickled object could run any code
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        load_backbone_weights(network, str(tmp_path / "b.pth"))


def test_without_network_imagenet_says_which_file_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "urlopen", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=rf"resnet18-\w+\.pth; .*put it at {tmp_path}.*\.pth$"):
        load_backbone_weights(small_network(), "imagenet")


def keras_name(name: str, is_norm: bool, newer: bool) -> str:
    """The name of a ResNet's layer in Keras before or since version 2.2."""
    place = name.split(".", 2)
    if len(place) == 1:
        return f"conv1_{'bn' if is_norm else 'conv'}" if newer else ("bn_conv1" if is_norm else "conv1")
    stage, block = int(place[0][-1]) + 1, int(place[1])
    branch = 0 if "downsample" in name else int(name[-1])
    if newer:
        return f"conv{stage}_block{block + 1}_{branch}_{'bn' if is_norm else 'conv'}"
    return f"{'bn' if is_norm else 'res'}{stage}{'abcdef'[block]}_branch{('1', '2a', '2b', '2c')[branch]}"


def write_keras(path: Path, resnet: Backbone, newer: bool = False, whole_model: bool = False) -> None:
    """A Keras weights file of a ResNet-50 whose convolutions have a bias, in Keras's layout and names."""
    h5py = pytest.importorskip("h5py")
    layers: dict[str, list[np.ndarray]] = {"input_1": []}
    for name, module in resnet.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            kernel = module.weight.detach().permute(2, 3, 1, 0)
            layers[keras_name(name, False, newer)] = [kernel.numpy(), module.bias.detach().numpy()]
        elif isinstance(module, nn.BatchNorm2d):
            each = (module.weight, module.bias, module.running_mean, module.running_var)
            layers[keras_name(name, True, newer)] = [value.detach().numpy() for value in each if value is not None]
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        root.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}_{number}:0".encode() for number in range(len(arrays))]
            for number, array in enumerate(arrays):
                group[f"{name}_{number}:0"] = array


def fill_as_keras(resnet: Backbone) -> None:
    """Give a ResNet biases as Keras's has, and a normalisation that is not the identity."""
    for module in resnet.modules():
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(0.3 * torch.randn(module.out_channels))
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 1.0, 3.0)


@pytest.fixture(scope="module")
def keras() -> Backbone:
    """The original's ResNet as Keras has it."""
    torch.manual_seed(0)
    resnet = Backbone("resnet50", stride_in_1x1=True, block3_stride=True).eval()
    fill_as_keras(resnet)
    return resnet


def original_network() -> DELF:
    return DELF("resnet50", 3, stride_in_1x1=True, block3_stride=True).eval()


@pytest.mark.parametrize(("newer", "whole_model"), [(False, False), (True, False), (True, True)])
def test_keras_file_is_the_same_function(tmp_path: Path, keras: Backbone, newer: bool, whole_model: bool) -> None:
    write_keras(tmp_path / "a.h5", keras, newer, whole_model)
    network = original_network()
    assert load_backbone_weights(network, str(tmp_path / "a.h5")) == []
    images = torch.randint(0, 256, (1, 3, 65, 65)).float()
    blue_first = images.flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
    with torch.inference_mode():
        for ours, theirs in zip(network.backbone(network.normalise(images)), keras(blue_first), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    with pytest.raises(InputError, match="stride_in_1x1=true"):
        load_backbone_weights(small_network(), str(tmp_path / "a.h5"))


def test_keras_files_that_do_not_fit(tmp_path: Path, keras: Backbone) -> None:
    h5py = pytest.importorskip("h5py")
    network, path = original_network(), tmp_path / "a.h5"
    write_keras(path, keras)
    whole = path.read_bytes()
    for content in (b"no", b"", b"<!DOCTYPE html><html></html>", whole[:1000], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no Keras weights file, or damaged"):
            load_backbone_weights(network, str(path))
    write_keras(path, keras, newer=True)
    with h5py.File(path, "a") as file:
        del file["conv3_block1_1_bn"]["conv3_block1_1_bn_3:0"]
        file["conv3_block1_1_bn"].attrs["weight_names"] = [f"conv3_block1_1_bn_{number}:0" for number in range(3)]
    with pytest.raises(InputError, match="of another network than Keras's ResNet-50"):
        load_backbone_weights(network, str(path))
    with h5py.File(path, "a") as file:
        file["conv1_conv"].create_dataset("large", shape=(40_000, 40_000), dtype="f4", chunks=True)
        file["conv1_conv"].attrs["weight_names"] = ["large"]
    with pytest.raises(InputError, match="no Keras weights file, or damaged"):
        load_backbone_weights(network, str(path))


def test_the_weights_of_the_other_resnet_are_refused(tmp_path: Path) -> None:
    """They have the same shapes: nothing else would tell."""
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "a.pth")
    network = original_network()
    before = network.backbone.get_parameter("layer3.0.conv1.weight").clone()
    with pytest.raises(InputError, match=r"stride_in_1x1=false, which gives other numbers; allowed: model\.stride"):
        load_backbone_weights(network, str(tmp_path / "a.pth"))
    assert torch.equal(network.backbone.get_parameter("layer3.0.conv1.weight"), before)
    network.mean.fill_(7.0)
    arguments = {"backbone": "resnet50", "stride_in_1x1": True, "block3_stride": True}
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"network": arguments}}, tmp_path / "b.ckpt")
    again = original_network()
    load_backbone_weights(again, str(tmp_path / "b.ckpt"))
    assert torch.equal(again.backbone.get_parameter("layer3.0.conv1.weight"), before)
    assert again.mean.tolist() == [7.0] * 3  # what its images were normalised by comes with it
    plain = DELF("resnet50", 3, stride_in_1x1=False, block3_stride=True)
    with pytest.raises(InputError, match=r"stride_in_1x1=true, which gives other numbers"):
        load_backbone_weights(plain, str(tmp_path / "b.ckpt"))
    load_backbone_weights(plain, str(tmp_path / "a.pth"), normalisation="original")
    assert plain.mean.tolist() == [128.0] * 3
    load_backbone_weights(plain, str(tmp_path / "a.pth"))
    assert plain.mean.tolist() == pytest.approx([123.675, 116.28, 103.53])


def test_a_downloaded_file_is_checked_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.get_model_weights("resnet18").IMAGENET1K_V1.url
    file = tmp_path / "hub" / "checkpoints" / Path(url).name
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
    with pytest.raises(InputError, match=rf"{file} is damaged: its SHA-256 does not begin with f37072fd; remove it"):
        load_backbone_weights(small_network(), "imagenet")


def test_imagenet_for_the_original_is_keras_file(
    tmp_path: Path, keras: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    network = original_network()
    with pytest.raises(
        InputError, match=r"\.keras/models/resnet50_weights.*_notop\.h5 is missing; put .* allowed: none"
    ):
        load_backbone_weights(network, "imagenet")
    (tmp_path / ".keras" / "models").mkdir(parents=True)
    write_keras(tmp_path / ".keras" / "models" / KERAS_FILE, keras)
    assert load_backbone_weights(network, "imagenet") == []
    assert network.std.tolist() == [1.0, 1.0, 1.0]
    large = DELF("resnet101", 3, stride_in_1x1=True, block3_stride=True)
    with pytest.raises(InputError, match="there are none for resnet101"):
        load_backbone_weights(large, "imagenet")


def test_checkpoint_rebuilds_the_network(tmp_path: Path, network: DELF) -> None:
    arguments = {"backbone": "resnet18", "stride_in_1x1": False, "block3_stride": True, "attention_channels": 32}
    content = {
        "state_dict": {f"model.{name}": value for name, value in network.state_dict().items()},
        "hyper_parameters": {"network": arguments, "classes": ["a", "b", "c"]},
    }
    torch.save(content, tmp_path / "a.ckpt")
    again, parameters = load_checkpoint(tmp_path / "a.ckpt")
    images = network.normalise(torch.randint(0, 256, (1, 3, 65, 65)))
    assert torch.equal(again(images).attention_logits, network(images).attention_logits)
    assert parameters["classes"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "change",
    [
        {"hyper_parameters": 3},
        {"hyper_parameters": {"network": "resnet18", "classes": ["a", "b", "c"]}},
        {"hyper_parameters": {"network": {"backbone": "resnet18"}, "classes": ["a", "b", "c"]}},
        {"hyper_parameters": {"network": {"backbone": "vgg", "stride_in_1x1": False, "block3_stride": True}}},
        {"classes": 3},
        {"classes": None},
        {"classes": ["a"]},
        {"network": {"attention_channels": "many"}},
        {"network": {"attention_channels": -1}},
        {"network": {"stride_in_1x1": "no"}},
        {"network": {"backbone": ["resnet18"]}},
        {"state_dict": None},
        {"state_dict": [1, 2]},
        {"state_dict": {}},
        {"state_dict": {"attention.conv1.weight": torch.zeros(1)}},
        {"state_dict": {"attention.conv1.weight": 3}},
    ],
    ids=str,
)
def test_malformed_checkpoints_are_told_in_one_line(tmp_path: Path, network: DELF, change: dict[str, Any]) -> None:
    arguments = {"backbone": "resnet18", "stride_in_1x1": False, "block3_stride": True, "attention_channels": 32}
    content: dict[str, Any] = {
        "state_dict": {f"model.{name}": value for name, value in network.state_dict().items()},
        "hyper_parameters": {"network": arguments | change.pop("network", {}), "classes": ["a", "b", "c"]},
    }
    if "classes" in change:
        content["hyper_parameters"]["classes"] = change.pop("classes")
    torch.save(content | change, tmp_path / "a.ckpt")
    with pytest.raises(
        InputError, match=r"a.ckpt (is no checkpoint of a DELF network|does not fit the network)"
    ) as error:
        load_checkpoint(tmp_path / "a.ckpt")
    assert len(str(error.value).splitlines()) == 1


def test_reduction_is_linear_and_decodes_through_relu(network: DELF) -> None:
    features = torch.rand(1, 256, 2, 2)
    descriptors, reconstruction = network.reduction(features)
    double, _ = network.reduction(2 * features)
    assert network.reduction.encoder.bias is not None
    bias = network.reduction.encoder.bias[:, None, None]
    torch.testing.assert_close(double - bias, 2 * (descriptors - bias))
    assert torch.equal(reconstruction, F.relu(network.reduction.decoder(descriptors)))
