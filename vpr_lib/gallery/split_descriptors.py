"""Descriptors of a split's photos, for what the gallery shows beyond the saved predictions."""

import functools
from collections.abc import Mapping

import numpy as np

from vpr_lib.descriptors import extract_descriptors, extract_from_dataset
from vpr_lib.features import open_features
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
        photos, run, network = self.tables[table], self.runs[model], self.load_model(model)
        settings, machine = run.settings, self.machine
        if rows is None or len(rows) == len(photos):
            # An evaluation has kept the output of the frozen part, from which descriptors take little time.
            features = open_features(network, settings, photos, run.folder.parent, machine, f"photos of the {table}")
            if features:
                return extract_from_dataset(network, features, settings.precision, machine)
        else:
            photos = photos[rows]
        cache_dir = run.folder / "descriptors"
        return extract_descriptors(network, photos, settings.image_size, cache_dir, settings.precision, machine)
