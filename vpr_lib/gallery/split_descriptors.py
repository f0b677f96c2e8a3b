"""Descriptors of a split's photos, for what the gallery shows beyond the saved predictions."""

import functools
from collections.abc import Mapping

import numpy as np

from vpr_lib.descriptors import extract_descriptors
from vpr_lib.gallery.rendering import LoadModel
from vpr_lib.images import ImageTable
from vpr_lib.machine import Machine
from vpr_lib.run_folders import Run


class SplitDescriptors:
    """Extracts descriptors by the models of runs; they are kept in the run folders, where those can be written."""

    def __init__(
        self, tables: Mapping[str, ImageTable], runs: Mapping[str, Run], load_model: LoadModel, machine: Machine
    ) -> None:
        self.tables = dict(tables)  # "database" and "queries"
        self.runs = dict(runs)
        self.load_model = load_model
        self.machine = machine
        self.read_database = functools.cache(lambda model: self.describe(model, "database"))  # model -> (N, D)

    def describe(self, model: str, table: str, rows: np.ndarray | None = None) -> np.ndarray:
        """(n, D) float32, the descriptors of a table's rows, or of all; raises what `extract_descriptors` raises."""
        photos = self.tables[table]
        if rows is not None and len(rows) < len(photos):
            photos = photos[rows]
        run = self.runs[model]
        cache_dir, settings = run.folder / "descriptors", run.settings
        return extract_descriptors(
            self.load_model(model), photos, settings.image_size, cache_dir, settings.precision, self.machine
        )
