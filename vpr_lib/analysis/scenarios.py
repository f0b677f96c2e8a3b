"""Scenarios: what makes a query difficult, read from `scenarios.csv` of a data root."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpr_lib.checked_files import DamagedFile, is_sealed
from vpr_lib.options import check_choice

# Rows of the published gallery, in its order. Its last row, fail cases, is an outcome and not a scenario.
SCENARIOS: dict[str, str] = {
    "viewpoint": "Viewpoint change",
    "repetitive": "Repetitive structures",
    "skyline": "Skyline",
    "occlusion": "Occlusion",
    "illumination": "Illumination change",
    "ordinary": "Ordinary",
}

LIGHTS = ("day", "sunset", "night")  # details that name the light, in the order of tokyo_xs


@dataclass(frozen=True)
class Label:
    """The scenario of a query."""

    scenario: str  # key of `SCENARIOS`
    detail: str = ""  # free text, for example "night" or "bus"


class QueryGroups(NamedTuple):
    """Queries grouped by what makes them difficult."""

    kinds: np.ndarray  # (Q,) str, keys of `titles`; "" for a query without label
    titles: dict[str, str]  # {kind: title}, those that occur


def read_labels(data_root: str | Path) -> dict[str, Label]:
    """Read `<data_root>/scenarios.csv`, with the columns query, scenario and optionally detail.

    Returns:
        {file name of a query, without folders: label}; empty if the file does not exist.

    Raises:
        ValueError: a column is missing, a scenario is unknown, a query has two scenarios, or the file does not fit the
            checksum in `scenarios.csv.sha256`, if there is one.
    """
    path = Path(data_root) / "scenarios.csv"
    if not path.is_file():
        return {}
    data = path.read_bytes()
    if not is_sealed(path, data):
        advice = f"python -m vpr_lib city --out {data_root} restores a rendered city's"
        raise DamagedFile(path, "its checksum is wrong", f"{advice}; if the change is yours, delete {path.name}.sha256")
    try:
        text = data.decode("utf-8-sig")  # spreadsheets write a byte order mark
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV in UTF-8 ({error}); save it again as CSV UTF-8") from None
    if not {"query", "scenario"} <= set(reader.fieldnames or []):
        raise ValueError(f"{path} begins with {reader.fieldnames}; expected the header query,scenario,detail")
    labels: dict[str, Label] = {}
    for line, row in enumerate(rows, start=2):
        name = base_name((row["query"] or "").strip())
        label = Label((row["scenario"] or "").strip(), (row.get("detail") or "").strip())
        check_choice(f"scenario in line {line} of {path}", label.scenario, SCENARIOS)
        if labels.setdefault(name, label).scenario != label.scenario:
            raise ValueError(f"{path} has {name} as {labels[name].scenario} and as {label.scenario}; keep one")
    return labels


def label_scenarios(names: Sequence[str], labels: Mapping[str, Label]) -> np.ndarray:
    """Look up the scenario of each query, (Q,) str: a key of `SCENARIOS`, or "" where the file name has no label."""
    return np.array([labels.get(base_name(name), Label("")).scenario for name in names], dtype=str)


def group_queries(names: Sequence[str], labels: Mapping[str, Label]) -> QueryGroups:
    """Group queries by scenario, in the order of `SCENARIOS`; without any label, all queries are one group."""
    return _keep_groups(label_scenarios(names, labels), SCENARIOS)


def group_lights(names: Sequence[str], labels: Mapping[str, Label]) -> QueryGroups:
    """Group queries by day, sunset and night, where that is known; without any label, all queries are one group."""
    lights = label_lights(names, labels)
    return _keep_groups(np.where(np.isin(lights, LIGHTS), lights, ""), {light: light for light in LIGHTS})


def _keep_groups(kinds: np.ndarray, titles: Mapping[str, str]) -> QueryGroups:
    titles = {kind: title for kind, title in titles.items() if (kinds == kind).any()}
    return QueryGroups(kinds, titles) if titles else QueryGroups(np.full(len(kinds), "all"), {"all": "All queries"})


def label_lights(names: Sequence[str], labels: Mapping[str, Label]) -> np.ndarray:
    """Look up the light of each query, (Q,) str: the detail of an illumination change or in `LIGHTS`; "" otherwise."""
    matching = [labels.get(base_name(name), Label("")) for name in names]
    has_light = [label.scenario == "illumination" or label.detail in LIGHTS for label in matching]
    return np.where(has_light, [label.detail for label in matching], "")


def find_light(name: str) -> str:
    """A word of `LIGHTS` in a photo's file name, as in Tokyo 24/7; "" if there is none."""
    match = re.search(rf"(?<![a-z])({'|'.join(LIGHTS)})(?![a-z])", base_name(name).lower())
    return match[1] if match else ""


def base_name(name: str) -> str:
    """File name of a photo without its folders."""
    return name.rsplit("/", 1)[-1]
