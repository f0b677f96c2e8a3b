"""Queries -> scenario: what makes a query hard, as known from the data root's `scenarios.csv`."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpr_lib.options import check_choice

# The published gallery's rows, in its order; its last row, fail cases, is an outcome and no scenario.
SCENARIOS: dict[str, str] = {
    "viewpoint": "Viewpoint change",
    "repetitive": "Repetitive structures",
    "skyline": "Skyline",
    "occlusion": "Occlusion",
    "illumination": "Illumination change",
    "ordinary": "Ordinary",
}

LIGHTS = ("day", "sunset", "night")  # details that name the light, in tokyo_xs' order


@dataclass(frozen=True)
class Label:
    """What is known about a query."""

    scenario: str  # an id in `SCENARIOS`
    detail: str = ""  # free text: "night", "bus"


def read_labels(data_root: str | Path) -> dict[str, Label]:
    """The labels in `<data_root>/scenarios.csv`, whose header is `query,scenario` or `query,scenario,detail`.

    Args:
        data_root: folder with evaluation splits.

    Returns:
        {file name of a query, without its folder: label}; empty where there is no such file.

    Raises:
        ValueError: a column is missing, a scenario is unknown, or a query stands there with two scenarios.
    """
    path = Path(data_root) / "scenarios.csv"
    if not path.is_file():
        return {}
    labels: dict[str, Label] = {}
    with open(path, encoding="utf-8-sig", newline="") as file:  # -sig: spreadsheets put a mark in front
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


def read_scenarios(data_root: str | Path) -> dict[str, str]:
    """{file name of a query: scenario id}, as `read_labels` without the details."""
    return {name: label.scenario for name, label in read_labels(data_root).items()}


def label_scenarios(names: Sequence[str], labels: Mapping[str, Label]) -> np.ndarray:
    """The scenario of each query.

    Args:
        names: Q names of queries, as in an `ImageTable`; folders before the name are ignored.
        labels: of `read_labels`.

    Returns:
        (Q,) str, scenario ids; "" where none is known.
    """
    found = [labels.get(base_name(name)) for name in names]
    return np.array([label.scenario if label else "" for label in found], dtype=str)


def label_lights(names: Sequence[str], labels: Mapping[str, Label]) -> np.ndarray:
    """The light of each query: the detail of an illumination change, or a detail that is one of `LIGHTS`.

    Args and Returns: as `label_scenarios`, with details in place of scenario ids.
    """
    found = [labels.get(base_name(name), Label("")) for name in names]
    known = [label.scenario == "illumination" or label.detail in LIGHTS for label in found]
    return np.array([label.detail if k else "" for label, k in zip(found, known, strict=True)], dtype=str)


def base_name(name: str) -> str:
    """A photo's own file name, without the folders before it."""
    return name.rsplit("/", 1)[-1]
