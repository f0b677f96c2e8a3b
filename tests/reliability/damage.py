"""Damages every kind of file that the kit writes, at random places, and sees what the kit does with it.

    python tests/reliability/damage.py --seconds 300 --seed 1 [--only pack]

Prints a row for each kind of file: how often it was damaged, and how often the kit
- refused it: an error that names the file;
- made it again, or fell back on another file: the result is right, and the file was replaced or a message names it;
- was unharmed: the result is right, because the damage touched nothing that is used;
- told: the result is another one, and a message names the file (tags, which people edit);
- was silent: a wrong result without a word, or a traceback. Exit status 1 if that ever happens.
"""

import argparse
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/, for its conftest

import numpy as np
import torch
from conftest import make_root

from vpr_lib import images
from vpr_lib.analysis.scenarios import read_labels
from vpr_lib.backbones import ResNet
from vpr_lib.city import CitySettings, write_city
from vpr_lib.command_line.parser import main
from vpr_lib.data_roots import DataRoot, read_split
from vpr_lib.descriptors import extract_descriptors
from vpr_lib.features import open_features
from vpr_lib.gallery.tags import Tags
from vpr_lib.identity import hash_weights
from vpr_lib.images import read_images
from vpr_lib.machine import Machine
from vpr_lib.models import build_model
from vpr_lib.run_folders import open_run
from vpr_lib.settings import get_preset, replace
from vpr_lib.trunks import find_city_weights

OUTCOMES = ("refused", "made again", "unharmed", "told", "silent")
QUIET = ("--set", "num_workers=0", "--set", "progress=false", "--set", "device=cpu")
SMALL = replace(get_preset("smoke"), aggregator="GeM", image_size=32, num_places=3, crop_after="layer1", ks=(1, 5))
CITY = CitySettings(
    size=32, cities=1, places=2, photos_per_place=2, val_database=32, val_queries=6, test_database=32, test_queries=6,
    tokyo_database=32, tokyo_places=1,
)  # fmt: skip


class Refused(Exception):
    """A command ended with an error message."""


class Kind(NamedTuple):
    """A kind of file and what is done with it."""

    name: str
    files: str  # glob pattern below the workspace
    use: Callable[[Path], Any]  # workspace -> a result that can be compared
    prepare: Callable[[Path], None] = lambda folder: None  # changes the workspace before the damage


def command(*arguments: object) -> str:
    """Run a command of the kit in this process; what it prints. An error message is `Refused`."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main([str(argument) for argument in arguments])
    print(output.getvalue(), errors.getvalue())
    if status:
        raise Refused(errors.getvalue())
    return output.getvalue()


def train(folder: Path) -> str:
    """Train or close the run; a hash of its weights."""
    changes = [f"--set={key}={value}" for key, value in (("num_places", 3), ("crop_after", "layer1"), ("ks", "[1, 5]"))]
    options = ["--preset", "smoke", "--aggregator", "GeM", "--image-size", 32, *changes, *QUIET]
    command("train", "--data", folder / "root", "--out", folder / "run", *options)
    return hash_weights(open_run(folder / "run").load_model())


def evaluate(folder: Path) -> list:
    """Evaluate the run on a split: recalls, and the exact descriptors of its model."""
    run, out = folder / "run", folder / "recall.json"
    command("evaluate", "--run", run, "--data", folder / "root", "--split", "val", "--json", out, *QUIET)
    return [json.loads(out.read_text()), hash_weights(open_run(run).load_model())]


def read_predictions(folder: Path) -> list:
    """All predictions of the run, not only their recall."""
    from vpr_lib.evaluation import evaluate_run

    machine = Machine(device="cpu", num_workers=0, progress=False)
    evaluation = evaluate_run(open_run(folder / "run"), folder / "root", "val", machine)
    return [evaluation.indices.tolist(), evaluation.distances.tolist()]


def read_descriptors(folder: Path) -> list:
    machine = Machine(device="cpu", num_workers=0, progress=False)
    torch.manual_seed(0)
    photos = folder / "root" / "val" / "queries"
    return extract_descriptors(build_model(SMALL), photos, 32, folder / "cache", machine=machine).tolist()


def read_features(folder: Path) -> list:
    settings = replace(SMALL, crop_after="layer2", freeze_until="layer1", randaugment_ops=0)
    machine = Machine(device="cpu", num_workers=0, progress=False)
    photos = read_images(folder / "root" / "val" / "queries")
    return open_features(build_model(settings), settings, photos, folder / "runs", machine).features.tolist()


def read_pack(folder: Path) -> list:
    """Names, positions and bytes of all photos of the packed split and training set."""
    tables = [*read_split(folder / "packed", "val"), read_images(folder / "packed" / "train.zip")]
    rows = [[(name, table.read_bytes(row)) for row, name in enumerate(table.names)] for table in tables]
    return [rows, [table.utm.tolist() for table in tables]]


def check_packs(folder: Path) -> str:
    return command("check", folder / "packed", "--any-size")


def repair_city(folder: Path) -> list:
    """Call the city command again: all files it made, and its identity."""
    changes = [f"--set={name}={value}" for name, value in vars(CITY).items() if name != "seed"]
    command("city", "--out", folder / "city", "--workers", 0, *changes)
    files = sorted(path for path in (folder / "city").rglob("*") if path.suffix in (".jpg", ".csv"))
    return [[(path.name, path.read_bytes()) for path in files], DataRoot(folder / "city").fingerprint("sf_val")]


def read_tags(folder: Path) -> list:
    tags = Tags(folder / "tags-val.csv", [f"query{i}.jpg" for i in range(9)])
    print(tags.message)
    return [tags.list_scenarios(f"query{i}.jpg") for i in range(9)]


def unpack(folder: Path) -> list:
    command("unpack", folder / "gsv_xs.zip", "--to", folder / "xs", "--as", "gsv_xs", "--any-size")
    return [(path.name, path.read_bytes()) for path in sorted((folder / "xs" / "train").rglob("*.jpg"))]


def read_fingerprint(folder: Path) -> str:
    images.LARGE = 3
    try:
        return read_images(folder / "root" / "val" / "queries").fingerprint
    finally:
        images.LARGE = 20_000


def without_model(folder: Path) -> None:
    (folder / "run" / "model.pt").unlink()


KINDS = (
    Kind("model.pt", "run/model.pt", evaluate),
    Kind("checkpoint.pt", "run/checkpoint.pt", train, without_model),
    Kind("best.pt", "run/best.pt", train, without_model),
    Kind("settings.json", "run/settings.json", evaluate),
    Kind("history.csv", "run/history.csv", lambda folder: open_run(folder / "run").history),
    Kind("predictions", "run/predictions/*.npz", read_predictions),
    Kind("cached descriptors", "cache/*.npy", read_descriptors),
    Kind("frozen features", "runs/frozen_features/*.npy", read_features),
    Kind("pack, reading", "packed/*.zip", read_pack),
    Kind("pack, check", "packed/*.zip", check_packs),
    Kind("pack of another program", "foreign/val.zip", lambda folder: [
        [(name, table.read_bytes(row)) for row, name in enumerate(table.names)]
        for table in read_split(folder / "foreign", "val")
    ]),
    Kind("manifest.json", "packed/manifest.json", check_packs),
    Kind("city.json", "city/city.json", repair_city),
    Kind("rendered photo", "city/*/**/*.jpg", repair_city),
    Kind("contact sheet", "city/contact_sheet.jpg", repair_city),
    Kind("scenarios.csv, rendering", "city/scenarios.csv", repair_city),
    Kind("scenarios.csv, reading", "city/scenarios.csv", lambda folder: read_labels(folder / "city")),
    Kind("scenarios.csv.sha256", "city/scenarios.csv.sha256", lambda folder: read_labels(folder / "city")),
    Kind("tags", "tags-val.csv", read_tags),
    Kind("tags' .sha256", "tags-val.csv.sha256", read_tags),
    Kind("checksums of photos", "root/val/.queries-checksums.npz", read_fingerprint),
    Kind("weights, not sealed", "resnet18.pt", lambda folder: hash_weights(ResNet(weights=folder / "resnet18.pt"))),
    Kind("downloaded zip", "gsv_xs.zip", unpack),
)  # fmt: skip


def make_workspace(folder: Path) -> None:
    """All kinds of files, undamaged."""
    root = make_root(folder / "root")
    train(folder)
    evaluate(folder)
    read_descriptors(folder)
    read_features(folder)
    (folder / "packed").mkdir()
    for part in ("train", "val"):
        command("pack", root / part, "--size", 32, "--out", folder / "packed" / f"{part}.zip")
    check_packs(folder)
    (folder / "foreign").mkdir()
    zip_folder(root / "val", folder / "foreign" / "val.zip")
    zip_folder(root / "train", folder / "gsv_xs.zip", "gsv_xs/train/")
    write_city(folder / "city", CITY, workers=0, progress=False)
    tags = Tags(folder / "tags-val.csv", [f"query{i}.jpg" for i in range(9)])
    for i, scenario in enumerate(("skyline", "occlusion", "viewpoint", "skyline", "repetitive")):
        tags.toggle(f"query{i}.jpg", scenario)
    read_fingerprint(folder)
    shutil.copy(find_city_weights(), folder / "resnet18.pt")


def zip_folder(folder: Path, path: Path, prefix: str = "") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for photo in sorted(folder.rglob("*.jpg")):
            archive.write(photo, prefix + photo.relative_to(folder).as_posix())


def damage(data: bytes, dice: random.Random) -> bytes:
    """Data with one of the damages that disks, networks and crashes cause; never the same."""
    at = dice.randrange(len(data))
    length = min(dice.choice((1, 16, 512, 4096)), len(data) - at)
    changed = {
        "flip a bit": data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :],
        "flip a bit at the end": data[:-200] + flip(data[-200:], dice),
        "cut": data[:at],
        "zeros": data[:at] + bytes(length) + data[at + length :],
        "other bytes": data[:at] + dice.randbytes(length) + data[at + length :],
        "a piece is missing": data[:at] + data[at + length :],
        "a piece twice": data[: at + length] + data[at:],
        "longer": data + dice.randbytes(length),
    }
    name = dice.choice(list(changed))
    return changed[name] if changed[name] != data else damage(data, dice)


def flip(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def try_once(kind: Kind, pristine: Path, folder: Path, expected: Any, dice: random.Random) -> str:
    """Damage one file of a fresh workspace and use it: an outcome."""
    file = restore(kind, pristine, folder, dice)
    damaged = damage(file.read_bytes(), dice)
    file.write_bytes(damaged)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = kind.use(folder)
    except (Refused, ValueError, OSError) as error:
        if file.name.removesuffix(".sha256") in str(error) or file.stem in str(error):
            return "refused"
        print(f"{kind.name}: an error that does not name the file: {error!r}")
        return "silent"
    except Exception:
        traceback.print_exc()
        return "silent"
    is_told = file.name.removesuffix(".sha256") in printed.getvalue() + " ".join(str(each.message) for each in caught)
    is_replaced = not file.is_file() or file.read_bytes() != damaged
    if result == expected:
        return "made again" if is_replaced or is_told else "unharmed"
    return "told" if is_told else "silent"


def restore(kind: Kind, pristine: Path, folder: Path, dice: random.Random) -> Path:
    """A fresh workspace that has what the kind needs; the file to damage."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    top = kind.files.split("/")[0]
    for name in {top, *(["root"] if top in ("run", "runs", "cache") else [])}:
        source = pristine / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        else:
            shutil.copy2(source, folder / name)
    if top.startswith("tags"):
        for path in pristine.glob("tags-val.csv*"):
            shutil.copy2(path, folder)
    kind.prepare(folder)
    return dice.choice(sorted(folder.glob(kind.files)))


def run_campaign(seconds: float, seed: int, only: str = "", some: int = 0) -> dict[str, Counter]:
    """{kind: number of each outcome}; each kind gets an equal share of the time, and two trials at least."""
    kinds = [kind for kind in KINDS if only in kind.name]
    if some:
        kinds = random.Random(seed).sample(kinds, some)
    counts: dict[str, Counter] = {}
    with tempfile.TemporaryDirectory() as temporary:
        pristine, folder = Path(temporary) / "pristine", Path(temporary) / "work"
        pristine.mkdir()
        with contextlib.redirect_stdout(io.StringIO()):
            make_workspace(pristine)
        for kind in kinds:
            dice = random.Random(f"{seed} {kind.name}")
            restore(kind, pristine, folder, dice)
            with contextlib.redirect_stdout(io.StringIO()):
                expected = kind.use(folder)
            end = time.monotonic() + seconds / len(kinds)
            outcomes: Counter = Counter()
            while time.monotonic() < end or outcomes.total() < 2:
                outcomes[try_once(kind, pristine, folder, expected, dice)] += 1
            counts[kind.name] = outcomes
    return counts


def format_table(counts: dict[str, Counter]) -> str:
    rows = [("kind of file", "tried", *OUTCOMES)]
    rows += [(name, each.total(), *(each[outcome] for outcome in OUTCOMES)) for name, each in counts.items()]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    parser.add_argument("--some", type=int, default=0, help="number of kinds to draw by the seed (0: all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    print(f"seed {options.seed}", flush=True)
    counts = run_campaign(options.seconds, options.seed, options.only, options.some)
    print(format_table(counts))
    sys.exit(any(each["silent"] for each in counts.values()))
