"""Decoding, loading and descriptors."""

import functools
import io
import shutil
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import photo_name, write_photo
from PIL import Image
from torch import nn
from torchvision.models.resnet import BasicBlock
from torchvision.transforms import functional as transforms

from vpr_lib import checked_files, descriptors
from vpr_lib.aggregators import AGGREGATORS
from vpr_lib.augmentation import augment, normalize
from vpr_lib.descriptors import extract_descriptors
from vpr_lib.images import read_images
from vpr_lib.loading import BatchRequest, PhotoDataset, load_batches
from vpr_lib.machine import Machine
from vpr_lib.models import build_model
from vpr_lib.photos import decode
from vpr_lib.settings import replace


def jpeg(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def smooth_pixels(height, width):
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [(48, 64), (100, 100), (300, 20)])
def test_decode_is_pillows_bilinear_resize(size):
    data = jpeg(smooth_pixels(240, 320), quality=95)
    found = decode(data, size)
    slow = transforms.resize(Image.open(io.BytesIO(data)).convert("RGB"), size)  # torchvision's default is bilinear
    assert found.shape == (3, *size) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.asarray(slow).transpose(2, 0, 1)).mean() < 1.0


def test_decode_turns_a_phones_photo_upright():
    pixels = smooth_pixels(60, 90)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to show"
    found = decode(jpeg(pixels, quality=95, exif=exif), (90, 60))
    assert np.abs(found.astype(int) - np.rot90(pixels, -1).transpose(2, 0, 1)).mean() < 6


def test_gray_and_transparent_pictures_become_rgb():
    for mode in ("L", "RGBA", "P"):
        buffer = io.BytesIO()
        Image.fromarray(smooth_pixels(32, 32)).convert(mode).save(buffer, "PNG")
        assert decode(buffer.getvalue(), 16).shape == (3, 16, 16)


@pytest.mark.parametrize(
    "damage, workers", [pytest.param("truncated", 1, marks=pytest.mark.slow), ("text", 0), ("empty", 0)]
)
def test_an_unreadable_photo_is_named(tmp_path, damage, workers, machine, settings):
    for i in range(5):
        write_photo(tmp_path / photo_name(i, 0), i)
    victim = sorted(tmp_path.iterdir())[3]
    data = victim.read_bytes()
    victim.write_bytes({"truncated": data[: len(data) // 2], "text": b"no photo", "empty": b""}[damage])
    with pytest.raises(ValueError, match="not a readable photo") as error:
        extract_descriptors(build_model(settings), tmp_path, 32, machine=replace(machine, num_workers=workers))
    assert victim.name in str(error.value) and "Traceback" not in str(error.value)


def test_the_cache_gives_the_same_photos(data_root, machine):
    table = read_images(data_root / "train")
    plain, cached = PhotoDataset(table, 40), PhotoDataset(table, 40, cache_gb=1.0)
    assert plain.cache is None and PhotoDataset(table, 40, cache_gb=1e-4).cache is None
    batches = [BatchRequest(np.array([3, 1, 30])), BatchRequest(np.array([1, 3]))]
    for _ in range(2):
        for batch in batches:
            assert torch.equal(plain[batch].inputs, cached[batch].inputs)
    assert cached.is_cached.sum() == 3
    for photos, batch in zip(load_batches(cached, batches, replace(machine, num_workers=2)), batches, strict=True):
        assert torch.equal(photos.inputs, plain[batch].inputs) and photos.rows.tolist() == batch.rows.tolist()


def test_photos_in_memory_are_decoded_once_and_before_training(data_root, machine, tmp_path):
    table = read_images(data_root / "train")
    two = replace(machine, num_workers=2)
    dataset = PhotoDataset(table, 40, cache_gb=1.0)
    load_batches(dataset, [], two)
    assert dataset.is_cached.all()
    for row in (0, 7, 31):
        assert torch.equal(dataset.cache[row], PhotoDataset(table, 40).read(row))
    shutil.copytree(data_root / "train", tmp_path / "train")
    (tmp_path / "train" / table.names[20]).write_bytes(b"no photo")
    with pytest.raises(ValueError, match="not a readable photo") as error:
        load_batches(PhotoDataset(read_images(tmp_path / "train"), 40, cache_gb=1.0), [], two)
    assert str(table.names[20]) in str(error.value)


@pytest.mark.slow
def test_spawned_workers_load_what_forked_ones_do(data_root, settings):
    """Windows and macOS start workers anew: everything they need is pickled."""
    dataset = PhotoDataset(
        read_images(data_root / "train"), 32, transform=functools.partial(augment, settings=settings)
    )
    requests = [BatchRequest(np.array([3, 1]), (0, 1)), BatchRequest(np.array([7, 4]), (0, 2))]
    loader = load_batches(dataset, requests, Machine(device="cpu", num_workers=1, progress=False), start_method="spawn")
    for batch, request in zip(loader, requests, strict=True):
        assert torch.equal(batch.inputs, dataset[request].inputs)


@pytest.fixture(params=AGGREGATORS)
def model(request, settings):
    model = build_model(replace(settings, aggregator=request.param))
    for _ in range(3):  # BatchNorm statistics other than the initial ones
        model.train()(torch.rand(8, 3, 32, 32) * 3)
    return model


def test_extract_is_the_model_one_photo_at_a_time(model, data_root, machine):
    table = read_images(data_root / "val")
    model.eval()
    with torch.no_grad():
        one = [decode(table.read_bytes(i), 32) for i in range(len(table))]
        slow = torch.cat([model(normalize(torch.from_numpy(image)[None])) for image in one]).numpy()
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = extract_descriptors(
        model, data_root / "val", 32, precision="float32", machine=replace(machine, eval_batch_size=4)
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    half = extract_descriptors(model, data_root / "val", 32, precision="bfloat16", machine=machine)
    assert (F.cosine_similarity(torch.from_numpy(half), torch.from_numpy(slow)) > 0.99).all()
    # The caller's model is left as it was: weights, statistics and mode.
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_pack_is_described_like_its_folder(settings, data_root, tmp_path, machine):
    with zipfile.ZipFile(tmp_path / "pack.zip", "w") as pack:
        for path in (data_root / "val" / "database").iterdir():
            pack.write(path, path.name)
    model = build_model(settings)
    found = [
        extract_descriptors(model, f, 32, machine=machine)
        for f in (tmp_path / "pack.zip", data_root / "val" / "database")
    ]
    assert np.array_equal(*found)


@pytest.mark.slow
def test_cached_descriptors_are_those_of_this_model_data_and_size(settings, data_root, tmp_path, machine):
    queries = tmp_path / "queries"
    cache = tmp_path / "cache"
    shutil.copytree(data_root / "val" / "queries", queries)
    model = build_model(settings)

    def get(size=32, precision="float32"):
        return extract_descriptors(model, queries, size, cache, precision, machine)

    first = get()
    (file,) = cache.iterdir()
    written = io.BytesIO()
    np.save(written, first + 1)
    file.write_bytes(written.getvalue() + zlib.crc32(written.getvalue()).to_bytes(4, "little"))
    assert np.array_equal(get(), first + 1)  # read, not computed
    data = bytearray(file.read_bytes())
    for damaged in (data[:-1], data[:50], b"", data[:200] + bytes([data[200] ^ 1]) + data[201:]):
        file.write_bytes(damaged)
        assert np.array_equal(get(), first) and file.stat().st_size == len(data)  # computed again
    get(size=40)
    get(precision="bfloat16")
    with torch.no_grad():
        model.backbone.model.conv1.weight[0, 0, 0, 0] += 1e-3
    assert not np.array_equal(get(), first)
    assert len(list(cache.iterdir())) == 4
    write_photo(next(queries.iterdir()), 7, size=80)  # another photo of the same name
    get()
    assert len(list(cache.iterdir())) == 5


@pytest.mark.slow
def test_large_descriptor_files_are_memory_mapped(settings, data_root, tmp_path, machine, monkeypatch):
    table = read_images(data_root / "train")
    model = build_model(settings)
    machine = replace(machine, eval_batch_size=5)
    whole = extract_descriptors(model, table, 32, tmp_path / "one", machine=machine)
    assert type(whole) is np.ndarray and whole.flags.writeable
    monkeypatch.setattr(checked_files, "MAPPED_BYTES", whole.nbytes)
    mapped = extract_descriptors(model, table, 32, tmp_path / "two", machine=machine)
    assert isinstance(mapped, np.memmap) and np.array_equal(mapped, whole) and mapped.dtype == np.float32
    assert np.array_equal(extract_descriptors(model, table, 32, machine=machine), whole)


def test_a_photo_that_fails_half_way_leaves_no_file(settings, tmp_path, machine):
    for i in range(9):
        write_photo(tmp_path / "photos" / photo_name(i, 0), i)
    sorted((tmp_path / "photos").iterdir())[7].write_bytes(b"no photo")
    with pytest.raises(ValueError, match="not a readable photo"):
        machine = replace(machine, eval_batch_size=3)
        extract_descriptors(build_model(settings), tmp_path / "photos", 32, tmp_path / "cache", machine=machine)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.slow
def test_memory_of_extraction_does_not_grow_with_the_photos(tmp_path):
    """Peak memory for 20 and for 180 photos of 256 px; kept as float32, the 160 more would take 126 MB."""
    for i in range(180):
        write_photo(tmp_path / ("few" if i < 20 else "more") / photo_name(i, 0), i % 7)
    script = """
import resource, sys, torch
from vpr_lib.aggregators import GeM
from vpr_lib.backbones import ResNet
from vpr_lib.descriptors import extract_descriptors
from vpr_lib.machine import Machine
from vpr_lib.models import VPRModel
machine = Machine(device="cpu", num_workers=0, eval_batch_size=8, progress=False)
model = VPRModel(ResNet(crop_after="layer1"), GeM())
extract_descriptors(model, sys.argv[1], 256, precision="float32", machine=machine)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    for folder in (tmp_path / "few", tmp_path):
        done = subprocess.run([sys.executable, "-c", script, str(folder)], check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 50, f"{peaks[0]:.0f} MB for 20 photos, {peaks[1]:.0f} MB for 180"


def test_a_cache_that_cant_be_written_is_a_warning(settings, data_root, tmp_path, machine):
    (tmp_path / "cache").write_text("a file in place of the folder")
    model = build_model(settings)
    with pytest.warns(UserWarning, match="cache"):
        descriptors = extract_descriptors(model, data_root / "val" / "queries", 32, tmp_path / "cache", machine=machine)
    expected = extract_descriptors(model, data_root / "val" / "queries", 32, machine=machine)
    assert np.array_equal(descriptors, expected)


def test_batches_of_large_photos_are_smaller_on_a_cpu(settings, tmp_path, monkeypatch):
    """64 of 64 px; of 640 px, as many as have the pixels of 16 of 320 px."""
    for i in range(70):
        write_photo(tmp_path / photo_name(i, 0), i % 7, size=8)
    sizes = []

    def load(dataset, requests, machine):
        sizes[:] = [len(request.rows) for request in requests]
        return []

    monkeypatch.setattr(descriptors, "load_batches", load)
    model, machine = build_model(settings), Machine(device="cpu", progress=False)
    for size, expected in ((64, [64, 6]), (640, [4] * 17 + [2])):
        extract_descriptors(model, tmp_path, size, machine=machine)
        assert sizes == expected


@pytest.mark.parametrize("transform, cache_gb, num_workers, expected", [
    (None, 0.0, -1, 0), (None, 0.0, 2, 2), (None, 1.0, 2, 0), (torch.clone, 0.0, 2, 2), (torch.clone, 1.0, 2, 2),
])  # fmt: skip
def test_on_a_cpu_processes_load_what_is_augmented(data_root, transform, cache_gb, num_workers, expected):
    dataset = PhotoDataset(read_images(data_root / "train"), 32, cache_gb, transform)
    machine = Machine(device="cpu", progress=False, num_workers=num_workers)
    assert load_batches(dataset, [], machine).num_workers == expected


def test_blocks_of_other_kinds_are_not_folded():
    """Blocks in a user's model with another normalization, or of a class of their own."""

    class Block(BasicBlock):
        def forward(self, x):
            return super().forward(self.bn1(x))

    def group_norm(channels):
        return nn.GroupNorm(2, channels)

    model = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8, norm_layer=group_norm), Block(8, 8)).eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.uniform_(-1, 1)
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        prepared = descriptors.prepare_for_inference(model, torch.device("cpu"))
        torch.testing.assert_close(prepared(x), model(x), rtol=1e-4, atol=1e-4)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in prepared.modules()) == 2
