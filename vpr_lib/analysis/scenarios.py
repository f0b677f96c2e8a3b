"""Scenarios: what makes a query difficult, read from `scenarios.csv` of a data root."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


def read_labels(data_root: str | Path) -> dict[str, Label]:
    """Read `<data_root>/scenarios.csv`, with the columns query, scenario and optionally detail.

    Args:
        data_root: folder with evaluation splits.

    Returns:
        {file name of a query, without folders: label}; empty if the file does not exist.

    Raises:
        ValueError: a column is missing, a scenario is unknown, or a query has two scenarios.
    """
    path = Path(data_root) / "scenarios.csv"
    if not path.is_file():
        return {}
    labels: dict[str, Label] = {}
    with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte order mark
        reader = csv.DictReader(file)
        if not {"query", "scenario"} <= set(reader.fieldnames or []):
            raise ValueError(f"{path} begins with {reader.fieldnames}; expected the header query,scenario,detail")
        for row in reader:
            name = base_name((row["query"] or "").strip())
            label = Label((row["scenario"] or "").strip(), (row.get("detail") or "").strip())
            check_choice(f"scenario in line {reader.line_num} of {path}", label.scenario, SCENARIOS)
            if labels.setdefault(name, label).scenario != label.scenario:
                raise ValueError(f"{path} has {name} as {labels[name].scenario} and as {label.scenario}; keep one")
    return labels


def label_scenarios(names: Sequence[str], labels: Mapping[str, Label]) -> np.ndarray:
    """Look up the scenario of each query.

    Args:
        names: Q names of queries, as in an `ImageTable`; folders are ignored.
        labels: from `read_labels`.

    Returns:
        (Q,) str, keys of `SCENARIOS`; "" where unknown.
    """
    matching = [labels.get(base_name(name)) for name in names]
    return np.array([label.scenario if label else "" for label in matching], dtype=str)


def label_lights(names: Sequence[str], labels: Mapping[str, Label]) -> np.ndarray:
    """Look up the light of each query: the detail of an illumination change, or any detail in `LIGHTS`.

    Args:
        names: Q names of queries, as in an `ImageTable`; folders are ignored.
        labels: from `read_labels`.

    Returns:
        (Q,) str, details; "" where unknown.
    """
    lights = []
    for name in names:
        label = labels.get(base_name(name), Label(""))
        lights.append(label.detail if label.scenario == "illumination" or label.detail in LIGHTS else "")
    return np.array(lights, dtype=str)


def base_name(name: str) -> str:
    """File name of a photo without its folders."""
    return name.rsplit("/", 1)[-1]
