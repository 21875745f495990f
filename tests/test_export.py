"""Multi-scale extraction, and its exported forms: TorchScript in Python and C++, torch.export, ONNX."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_delf import make_transparent, small_network
from test_delf_extractor import Overflowing
from torch import Tensor

from minia.core.artifact import InputError
from minia.models.delf.export import (
    SCALES,
    ExportedDELF,
    ExtractionDefaults,
    export_delf,
    is_exported,
    load_exported,
)
from minia.models.delf.local_features import LocalFeatures, Selection, keep_apart, overlaps, resized_side
from minia.models.delf.network import DELF

CLASSES = ["a", "b", "c"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def network() -> DELF:
    return small_network()


@pytest.fixture(scope="module")
def local(network: DELF) -> LocalFeatures:
    return LocalFeatures(network)


@pytest.fixture(scope="module")
def exported(network: DELF, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_delf(network, tmp_path_factory.mktemp("export") / "delf.pt", classes=CLASSES, config={"seed": 1})


@pytest.fixture(scope="module")
def model(exported: Path) -> torch.jit.ScriptModule:
    with pytest.warns(FutureWarning, match=r"torch.jit.load"):
        loaded: torch.jit.ScriptModule = torch.jit.load(str(exported))
    return loaded


def images(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def select(local: LocalFeatures, batch: Tensor, scales: list[float], limit: int = 0, iou: float = 1.0) -> Selection:
    with torch.inference_mode():
        found: Selection = local(batch, None, scales, limit, 0.0, 0.0, iou)
    return found


def assert_same(found: dict[str, Tensor], expected: Selection, row: int) -> None:
    """Same keypoints in the same order, all numbers within the tolerance."""
    count = len(found["scores"])
    for name in Selection._fields:
        difference = (found[name] - getattr(expected, name)[row, :count]).abs().max()
        assert difference < TOLERANCE, name


def test_folding_changes_nothing(network: DELF, local: LocalFeatures) -> None:
    batch = images(2, 65, 90)
    with torch.inference_mode():
        expected = network.local_features(network.normalise(batch))
        found = local._local_features(network.normalise(batch))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())  # a copy was folded


def test_positions_at_the_seven_scales() -> None:
    network = small_network()
    make_transparent(network.backbone)
    trunk, counts = LocalFeatures(network).trunk, []
    for side in (resized_side(424, scale) for scale in SCALES):
        counts.append(trunk(torch.zeros(1, 1, side, side, dtype=torch.float64))[:, :, ::2, ::2].numel())
    assert counts == [49, 100, 196, 361, 729, 1089, 2809]
    assert sum(counts) == 5333


def test_selection_holds(local: LocalFeatures) -> None:
    found = select(local, images(2, 80, 70), [0.5, 1.0, 2.0], 15)
    assert found.scores.shape == (2, 15)
    assert set(found.scales.flatten().tolist()) <= {2.0, 1.0, 0.5}
    assert (found.scores >= 0).all()
    assert (found.scores.diff(dim=1) <= 0).all()
    torch.testing.assert_close(found.descriptors.norm(dim=2), torch.ones(2, 15))
    torch.testing.assert_close((found.boxes[..., :2] + found.boxes[..., 2:]) / 2, found.keypoints)
    every = select(local, images(2, 80, 70), [0.5, 1.0, 2.0])
    assert torch.equal(found.scores, every.scores[:, :15])  # without NMS: the best ones


@pytest.mark.parametrize("limit", [0, 12])
def test_an_overflow_costs_an_exported_network_its_cells_alone(network: DELF, limit: int) -> None:
    subject = ExportedDELF(network, "{}").eval()
    batch = images(2, 128, 96)
    with torch.inference_mode():
        plain = subject.extract_batch(batch, [1.0], 0, 0.0, 1.0)
        subject.local.attention = Overflowing(subject.local.attention, rows=1)  # type: ignore[assignment]
        found = subject.extract_batch(batch, [1.0], limit, 0.0, 1.0)
    assert [len(features["scores"]) for features in plain] == [12, 12]  # 4 rows and 3 columns
    assert [len(features["scores"]) for features in found] == [12, 9]
    for features in found:
        assert all(value.isfinite().all() for value in features.values())
    assert torch.equal(found[0]["scores"], plain[0]["scores"])
    assert set(found[1]["scores"].tolist()) < set(plain[1]["scores"].tolist())


def test_boxes_by_hand(local: LocalFeatures) -> None:
    found = select(local, images(1, 64, 48), [2.0])  # resized to 128 x 96: 4 x 3 cells
    corner = found.keypoints[0].sum(dim=1).argmin()
    centre, half = (0 + 0.5) / 2 - 0.5, 211 / 2 / 2
    assert found.keypoints[0, corner].tolist() == [centre, centre]
    assert found.boxes[0, corner].tolist() == [centre - half, centre - half, centre + half, centre + half]
    assert sorted(set(found.keypoints[0, :, 0].tolist())) == [(32 * j + 0.5) / 2 - 0.5 for j in range(3)]
    assert sorted(set(found.keypoints[0, :, 1].tolist())) == [(32 * i + 0.5) / 2 - 0.5 for i in range(4)]


@pytest.mark.parametrize(("scale", "tolerance"), [(1.0, 0.0), (0.5, 1.0), (2.0, 1.0), (1.4142, 1.0)])
def test_keypoint_and_box_are_what_the_gradient_says(scale: float, tolerance: float) -> None:
    """The pixels of the original image that a cell depends on fill its box, and their weight lies about its centre."""
    network = small_network()
    make_transparent(network.backbone)
    local = LocalFeatures(network)
    height, width = int(300 / scale) + 7, int(320 / scale) + 4
    image = torch.ones(1, 1, height, width, dtype=torch.float64, requires_grad=True)
    resized = torch.nn.functional.interpolate(
        image, size=[resized_side(height, scale), resized_side(width, scale)], mode="bilinear"
    )
    features = local.trunk(resized)[:, :, ::2, ::2]
    row, column = 4, 5
    features[0, :, row, column].sum().backward()
    assert image.grad is not None
    weight = image.grad[0].abs().sum(0)
    ratios = height / resized.shape[2], width / resized.shape[3]
    places = local._places(features, *ratios, scale)
    x, y, half_width, half_height, _ = places[row * features.shape[3] + column].tolist()
    for axis, centre, half in ((0, y, half_height), (1, x, half_width)):
        profile = weight.sum(1 - axis)
        seen = torch.nonzero(profile).flatten()
        assert int(seen[0]) - 0.5 == pytest.approx(centre - half, abs=tolerance + 1e-3)
        assert int(seen[-1]) + 0.5 == pytest.approx(centre + half, abs=tolerance + 1e-3)
        middle = float((profile * torch.arange(len(profile))).sum() / profile.sum())
        assert middle == pytest.approx(centre, abs=1e-2 if scale == 1 else 0.2)


@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5])
def test_a_shifted_image_shifts_the_keypoints(local: LocalFeatures, scale: float) -> None:
    """By one cell, 32 / scale pixels: the attention's map and the descriptors move along."""
    step = int(32 / scale)
    wide = torch.zeros(1, 3, int(640 / scale), int(640 / scale), dtype=torch.uint8)
    low, side = int(288 / scale), int(48 / scale)
    wide[:, :, low : low + side, low : low + side] = images(1, side, side)
    shifted = wide.roll(step, 3)
    before, after = select(local, wide, [scale]), select(local, shifted, [scale])
    reach = 320 / scale - (211 / 2 + 48) / scale  # cells nearer to the border see its padding
    scores = {
        tuple(point): score for point, score in zip(after.keypoints[0].tolist(), after.scores[0].tolist(), strict=True)
    }
    compared = 0
    for (x, y), score in zip(before.keypoints[0].tolist(), before.scores[0].tolist(), strict=True):
        if max(abs(x - 320 / scale), abs(y - 320 / scale)) < reach:
            assert scores[(x + step, y)] == pytest.approx(score, rel=1e-3)
            compared += 1
    assert compared >= 25


def test_thresholds(local: LocalFeatures) -> None:
    batch = images(2, 100, 100)
    every = select(local, batch, [1.0, 2.0]).scores
    limit = float(every.median())
    with torch.inference_mode():
        absolute = local(batch, None, [1.0, 2.0], 0, limit, 0.0, 1.0).scores
        relative = local(batch, None, [1.0, 2.0], 0, 0.0, 80.0, 1.0).scores
    for row in range(2):
        assert torch.equal(absolute[row][absolute[row] >= 0], every[row][every[row] >= limit])
        percentile = np.percentile(every[row].numpy(), 80)
        assert int((relative[row] >= 0).sum()) == int((every[row].numpy() >= percentile).sum())


def test_masks(local: LocalFeatures) -> None:
    batch, masks = images(2, 96, 96), torch.zeros(2, 96, 96, dtype=torch.bool)
    masks[0, 20:50, 30:70] = True
    with torch.inference_mode():
        found = local(batch, masks, [1.0, 2.0, 4.0], 0, 0.0, 50.0, 1.0)
    kept = found.keypoints[0][found.scores[0] >= 0]
    assert len(kept)
    assert ((kept.round() >= torch.tensor([30, 20])) & (kept.round() < torch.tensor([70, 50]))).all()
    assert (found.scores[1] < 0).all()  # nothing on the mask


boxes_of = st.integers(0, 2**32 - 1).map(
    lambda seed: torch.rand(60, 4, generator=torch.Generator().manual_seed(seed)) * torch.tensor([10, 10, 4, 4])
)


@settings(max_examples=30, deadline=None)
@given(boxes_of, st.floats(0.05, 0.95), st.sampled_from([1, 7, 512]), st.sampled_from([0, 5, 100]))
def test_suppression_is_the_greedy_one(corners: Tensor, iou: float, block: int, limit: int) -> None:
    boxes = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:] + 0.1], dim=1)
    table = overlaps(boxes, boxes)
    expected: list[int] = []
    for row in range(len(boxes)):
        if not any(table[row, better] > iou for better in expected):
            expected.append(row)
    assert keep_apart(boxes, iou, limit, block).tolist() == (expected[:limit] if limit else expected)


def test_suppression_in_the_selection(local: LocalFeatures) -> None:
    batch = images(2, 96, 96)
    found = select(local, batch, [1.0, 2.0, 2.4494], 0, 0.3)
    for row in range(2):
        boxes = found.boxes[row][found.scores[row] >= 0]
        assert 0 < len(boxes) < found.scores.shape[1]
        assert (overlaps(boxes, boxes).triu(1) <= 0.3).all()
    fewer = select(local, batch, [1.0, 2.0, 2.4494], 2, 0.3)
    assert torch.equal(fewer.keypoints, found.keypoints[:, :2])


@given(st.integers(1, 5000), st.sampled_from([0.25, 0.5, 0.7071, 1.0, 1.4142, 2.0, 2.4494, 4.0]))
def test_resized_side_is_rounded(side: int, scale: float) -> None:
    assert abs(resized_side(side, scale) - side * scale) <= 0.5 + 1e-6 or side * scale < 0.5
    assert resized_side(side, scale) >= 1


@pytest.mark.parametrize(("height", "width"), [(96, 96), (70, 130), (3, 40)])
def test_torchscript_is_the_same(model: torch.jit.ScriptModule, local: LocalFeatures, height: int, width: int) -> None:
    batch = images(2, height, width)
    for limit, iou in ((20, 1.0), (0, 0.5)):
        expected = select(local, batch, [0.5, 1.0, 1.4142], limit, iou)
        for row, found in enumerate(model.extract_batch(batch, [0.5, 1.0, 1.4142], limit, 0.0, iou)):
            assert len(found["scores"]) == int((expected.scores[row] >= 0).sum())
            assert_same(found, expected, row)


def test_torchscript_takes_either_layout(model: torch.jit.ScriptModule) -> None:
    image = images(1, 60, 80)[0]
    first, last = model(image, [1.0], 0, 0.0, 1.0), model(image.permute(1, 2, 0), [1.0], 0, 0.0, 1.0)
    assert all(torch.equal(first[name], last[name]) for name in Selection._fields)
    for wrong in (image.float(), image[:2]):
        with pytest.raises(torch.jit.Error, match="expected uint8 images with 3 channels"):
            model(wrong, [1.0], 0, 0.0, 1.0)


def test_batch_equals_one_at_a_time(model: torch.jit.ScriptModule) -> None:
    batch = images(3, 96, 80)
    for row, found in enumerate(model.extract_batch(batch, [0.7071, 1.0], 12, 0.0, 1.0)):
        single = model(batch[row], [0.7071, 1.0], 12, 0.0, 1.0)
        assert torch.equal(found["keypoints"], single["keypoints"])
        assert (found["descriptors"] - single["descriptors"]).abs().max() < TOLERANCE


def test_metadata(exported: Path, network: DELF) -> None:
    metadata = load_exported(exported)[1]
    assert metadata["classes"] == CLASSES
    assert metadata["config"] == {"seed": 1}
    assert metadata["network"]["receptive_field"] == 211
    assert metadata["preprocessing"]["mean"] == pytest.approx(network.mean.tolist())
    assert metadata["versions"]["torch"].startswith(torch.__version__.split("+")[0])


def test_existing_files_are_kept(network: DELF, exported: Path, tmp_path: Path) -> None:
    before = exported.read_bytes()
    with pytest.raises(InputError, match="exists; allowed: another path, or overwrite=true"):
        export_delf(network, exported, classes=CLASSES, config={})
    assert exported.read_bytes() == before
    (tmp_path / "a.pt").write_text("old")
    export_delf(network, tmp_path / "a.pt", classes=CLASSES, config={}, overwrite=True)
    assert is_exported(tmp_path / "a.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    with pytest.raises(InputError, match=r"ends in \.pt or \.pt2 or \.aoti\.pt2 or \.onnx"):
        export_delf(network, tmp_path / "b.pickle", classes=CLASSES, config={})


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    assert not is_exported(tmp_path / "a.pt")
    with pytest.raises(InputError, match="not a TorchScript file that train"):
        load_exported(tmp_path / "a.pt")
    with pytest.raises(InputError, match="not a TorchScript file"):
        load_exported(tmp_path / "missing.pt")


PROGRAM = """
import sys, torch
model = torch.jit.load(sys.argv[1])
image = torch.arange(3 * 70 * 90).remainder(251).to(torch.uint8).reshape(3, 70, 90)
found = model(image, [1.0, 2.0], 5, 0.0, 0.9)
print(model.metadata)
print(found["keypoints"].tolist())
assert not [name for name in sys.modules if name.startswith(("minia", "torchvision"))]
"""


def test_torchscript_needs_no_minia(exported: Path, local: LocalFeatures, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-W", "ignore", "-c", PROGRAM, str(exported)]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    metadata, keypoints = output.splitlines()
    assert json.loads(metadata)["classes"] == CLASSES
    image = torch.arange(3 * 70 * 90).remainder(251).to(torch.uint8).reshape(1, 3, 70, 90)
    expected = select(local, image, [1.0, 2.0], 5, 0.9)
    assert json.loads(keypoints) == expected.keypoints[0][expected.scores[0] >= 0].tolist()


def build_program(folder: Path) -> Path:
    """Compile the C++ program against the installed torch."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    torch_folder, program = Path(torch.__path__[0]), folder / "extract"
    include, library = torch_folder / "include", torch_folder / "lib"
    command = [
        compiler, "-std=c++20", "-O0", "-w", str(Path(__file__).parent / "libtorch" / "extract.cpp"),
        f"-I{include}", f"-I{include / 'torch' / 'csrc' / 'api' / 'include'}",
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        f"-L{library}", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{library}", "-o", str(program),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True)
    return program


def test_cpp_gives_the_same_numbers(exported: Path, local: LocalFeatures, tmp_path: Path) -> None:
    program, batch = build_program(tmp_path), images(1, 80, 110)
    (tmp_path / "image.rgb").write_bytes(batch[0].permute(1, 2, 0).contiguous().numpy().tobytes())
    command = [str(program), str(exported), "80", "110", str(tmp_path / "image.rgb"), str(tmp_path / "out.txt")]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert json.loads(output)["classes"] == CLASSES
    table = torch.from_numpy(np.loadtxt(tmp_path / "out.txt", dtype=np.float32, ndmin=2))
    expected = select(local, batch, [0.5, 1.0], 20, 0.6)
    assert len(table) == int((expected.scores[0] >= 0).sum()) > 0
    columns = {"keypoints": table[:, :2], "scores": table[:, 2], "scales": table[:, 3], "descriptors": table[:, 4:]}
    for name, values in columns.items():
        assert (values - getattr(expected, name)[0, : len(table)]).abs().max() < TOLERANCE


SIZES = [(2, 96, 96), (1, 70, 66), (3, 130, 201)]  # fewer and more cells than the limit


def test_pt2_is_the_same(network: DELF, local: LocalFeatures, tmp_path: Path) -> None:
    defaults = ExtractionDefaults([0.5, 1.4142], max_features=16)
    path = export_delf(network, tmp_path / "a.pt2", classes=CLASSES, config={}, defaults=defaults)
    extra = {"metadata.json": ""}
    model = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["metadata.json"])["defaults"]["max_features"] == 16
    for size in SIZES:
        expected = select(local, images(*size), [0.5, 1.4142], 16)
        found = model(images(*size), torch.ones(size, dtype=torch.bool))
        assert torch.equal(found[1], expected.keypoints)
        assert all((ours - theirs).abs().max() < TOLERANCE for ours, theirs in zip(found, expected, strict=True))


def test_a_pt2_file_gives_the_network_back(network: DELF, local: LocalFeatures, tmp_path: Path) -> None:
    defaults = ExtractionDefaults([1.0])
    path = export_delf(network, tmp_path / "a.pt2", classes=CLASSES, config={}, defaults=defaults)
    assert is_exported(path)
    state = torch.random.get_rng_state()
    loaded, metadata = load_exported(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert isinstance(loaded, LocalFeatures) and metadata["classes"] == CLASSES
    for size in SIZES:  # at scales that the file's own program does not know
        expected, found = (select(each, images(*size), [0.8], 9, 0.5) for each in (local, loaded))
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_a_pt2_file_is_the_same_bytes_each_time(network: DELF, tmp_path: Path) -> None:
    defaults = ExtractionDefaults([1.0], max_features=8)
    written = [
        export_delf(network, tmp_path / name, classes=CLASSES, config={}, defaults=defaults)
        for name in ("a.pt2", "another.pt2")
    ]
    assert written[0].read_bytes() == written[1].read_bytes()


@pytest.mark.parametrize(("height", "width"), [(460, 520), (337, 800)])
def test_tiles_give_what_the_whole_image_gives(network: DELF, height: int, width: int) -> None:
    whole, tiled = LocalFeatures(network, tile_pixels=0), LocalFeatures(network, tile_pixels=(2 * 224 + 160) ** 2)
    smooth = torch.nn.functional.interpolate(images(2, height // 4, width // 4).float(), size=(height, width))
    scales = [0.5, 1.3]
    expected, found = (select(each, smooth.to(torch.uint8), scales) for each in (whole, tiled))
    assert found.scores.shape == expected.scores.shape
    for image in range(2):
        one, other = (_by_place(each, image) for each in (expected, found))
        for name in ("keypoints", "boxes", "scores", "descriptors"):
            ours, theirs = getattr(found, name)[image][other], getattr(expected, name)[image][one]
            torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def _by_place(found: Selection, image: int) -> Tensor:
    """The rows of an image by their scale, line and column."""
    x, y = found.keypoints[image].double().T
    return torch.argsort(found.scales[image].double() * 1e8 + y * 1e4 + x)


def test_a_compiled_file_is_the_same(network: DELF, local: LocalFeatures, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler is here")
    defaults = ExtractionDefaults([1.0], max_features=16)
    path = export_delf(network, tmp_path / "a.aoti.pt2", classes=CLASSES, config={}, defaults=defaults)
    model = torch._inductor.aoti_load_package(str(path))
    assert json.loads(model.get_metadata()["metadata.json"])["classes"] == CLASSES
    expected = select(local, images(2, 130, 201), [1.0], 16)
    found = model(images(2, 130, 201), torch.ones(2, 130, 201, dtype=torch.bool))
    assert all((ours - theirs).abs().max() < TOLERANCE for ours, theirs in zip(found, expected, strict=True))
    with pytest.raises(
        InputError, match=r"a\.aoti\.pt2 is compiled, with settings that are fixed; allowed: a pt or pt2"
    ):
        load_exported(path)


def test_a_compiler_that_fails_is_one_line(network: DELF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", fail)
    with pytest.raises(InputError, match=r"export=aoti: torch's compiler failed, RuntimeError: no compiler; it needs"):
        export_delf(network, tmp_path / "a.aoti.pt2", classes=CLASSES, config={}, defaults=ExtractionDefaults([1.0]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("replaced", "by", "message"),
    [
        ("model_weights_config.json", b'"as_int": 64}, {"as_int": 3}=>"as_int": 64}, {"as_int": 9}', "beyond its file"),
        ("model_weights_config.json", b'"use_pickle": false=>"use_pickle": true', "plain float32"),
        ("metadata.json", b'"attention_channels"=>"other"', "earlier minIA and does not tell attention_channels"),
        ("metadata.json", b'"descriptor_size": =>"descriptor_size": 1', "size mismatch|not a pt2 file"),
    ],
)
def test_a_pt2_file_of_someone_else(network: DELF, tmp_path: Path, replaced: str, by: bytes, message: str) -> None:
    whole = export_delf(network, tmp_path / "a.pt2", classes=CLASSES, config={}, defaults=ExtractionDefaults([1.0]))
    before, after = by.split(b"=>")
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "b.pt2", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(replaced):
                assert before in content
                content = content.replace(before, after, 1)
            target.writestr(name, content)
    with pytest.raises(InputError, match=message):
        load_exported(tmp_path / "b.pt2")


def test_onnx_is_the_same(network: DELF, local: LocalFeatures, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    defaults = ExtractionDefaults([0.5, 1.4142], max_features=16)
    path = export_delf(network, tmp_path / "a.onnx", classes=CLASSES, config={}, defaults=defaults)
    session = onnxruntime.InferenceSession(str(path))
    assert json.loads(session.get_modelmeta().custom_metadata_map["metadata"])["classes"] == CLASSES
    for size in SIZES:
        expected = select(local, images(*size), [0.5, 1.4142], 16)
        given = {"images": images(*size).numpy(), "masks": np.ones(size, dtype=bool)}
        found = [torch.from_numpy(each) for each in session.run(None, given)]
        assert [output.name for output in session.get_outputs()] == list(Selection._fields)
        assert all((ours - theirs).abs().max() < TOLERANCE for ours, theirs in zip(found, expected, strict=True))
