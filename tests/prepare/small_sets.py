"""The three reduced sets with a few photos each, and helpers to compare folders."""

import zipfile

from conftest import photo_name, write_photo

SPLITS = {  # {set: {folder in its archive: split}}
    "gsv_xs": {"train": "train"},
    "sf_xs": {"val": "sf_val", "test": "sf_test"},
    "tokyo_xs": {"test": "tokyo_test"},
}


def write_sets(folder):
    """Write the sets unpacked, and as zips in zips/; sf_xs has a train/ that is not used."""
    for place in range(4):
        for view in range(2):
            name = photo_name(1000 * place, 4e6 + view, note=f"{place:05}_X", pano=view)
            write_photo(folder / "gsv_xs" / "train" / ("paris", "rome")[place % 2] / name, place, view)
    for number, split in enumerate(["sf_xs/train", "sf_xs/val", "sf_xs/test", "tokyo_xs/test"]):
        for place in range(3):
            for half in ("database", "queries")[: 1 + (place > 0)]:
                write_photo(folder / split / half / photo_name(100 * number + place, 4e6, pano=half), place + number)
    for name in SPLITS:
        make_zip(
            folder / "zips" / f"{name}.zip", {f"{name}/{p}": data for p, data in read_files(folder / name).items()}
        )
    return folder


def make_zip(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read_files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_unpacked(root, sets, *names):
    """The root holds the photos of these sets and no others."""
    expected = {}
    for name in names:
        for folder, split in SPLITS[name].items():
            expected |= {f"{split}/{p}": data for p, data in read_files(sets / name / folder).items()}
    assert {p: data for p, data in read_files(root).items() if p.endswith(".jpg")} == expected
