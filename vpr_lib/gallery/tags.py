"""Scenarios given to queries by hand, in a CSV beside the runs: `<runs>/tags-<split>.csv`, columns query,scenario.

A tag is about a query and no model, so all runs of a folder share the file. It is read again before each change and
written at once, so two notebooks may tag at the same time. Rows this kit doesn't understand stay as they are.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpr_lib.analysis.scenarios import SCENARIOS, base_name
from vpr_lib.atomic_files import write_atomically
from vpr_lib.options import check_choice

HEADER = ["query", "scenario"]


class Change(NamedTuple):
    """A tag put on a query or taken off it."""

    query: str  # file name, without folders
    scenario: str  # an id in `SCENARIOS`
    on: bool


class Tags:
    """The tags of a split's queries.

    Args:
        path: the CSV; made with the first tag.
        queries: Q names of the split's queries; folders before the name are ignored.

    Attributes:
        message: what the user should know about the file: "" where all is well.
    """

    def __init__(self, path: str | Path, queries: Sequence[str]) -> None:
        self.path = Path(path)
        self.rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(queries):
            self.rows_of.setdefault(base_name(name), []).append(row)
        self.num_queries = len(queries)
        self.tagged: dict[str, set[str]] = {}  # query -> scenarios
        self.message = ""
        self._unsaved: list[Change] = []
        self._done: list[Change] = []
        try:
            self._take(read_rows(self.path))
        except (OSError, ValueError) as error:
            self.message = f"{error}. New tags are not written until that is repaired."

    def list_scenarios(self, query: str) -> list[str]:
        """The scenarios a query is tagged with, in the order of `SCENARIOS`."""
        return [s for s in SCENARIOS if s in self.tagged.get(base_name(query), ())]

    def mark_queries(self, scenario: str) -> np.ndarray:
        """(Q,) bool, which queries are tagged with a scenario."""
        marked = np.zeros(self.num_queries, dtype=bool)
        for query, scenarios in self.tagged.items():
            if scenario in scenarios:
                marked[self.rows_of.get(query, [])] = True
        return marked

    def toggle(self, query: str, scenario: str) -> Change:
        """Tag a query, or take the tag off; written at once. `message` says whether that went well.

        Raises:
            ValueError: no such scenario; the message lists the valid ones.
        """
        check_choice("scenario", scenario, SCENARIOS)
        query = base_name(query)
        change = Change(query, scenario, scenario not in self.tagged.get(query, ()))
        self._done.append(change)
        self._save([change])
        return change

    def undo(self) -> Change | None:
        """Take back the last change of this session; returns what was taken back, None if there was nothing."""
        if not self._done:
            return None
        change = self._done.pop()
        self._save([change._replace(on=not change.on)])
        return change

    def merge(self, path: str | Path) -> int:
        """Add the tags of another CSV, for example one exported by the gallery's page; returns how many were new.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it isn't one of tags.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no tags at {path}; expected a CSV with the columns query,scenario")
        header, rows = read_rows(path)
        found = (get_tag(header, row) for row in rows)
        new = [Change(query, s, True) for query, s in found if s in SCENARIOS and s not in self.tagged.get(query, ())]
        self._save(list(dict.fromkeys(new)))
        return len(set(new))

    def _save(self, changes: list[Change]) -> None:
        """Bring the file up to date with changes, also those that couldn't be written before."""
        self._unsaved += changes
        for change in changes:
            scenarios = self.tagged.setdefault(change.query, set())
            (scenarios.add if change.on else scenarios.discard)(change.scenario)
        try:
            header, rows = read_rows(self.path)
            for change in self._unsaved:
                rows = apply_change(header, rows, change)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, format_rows(header, rows))
        except (OSError, ValueError) as error:
            self.message = f"Tags are kept in this session only: {error}"
            return
        self._unsaved = []
        self._take((header, rows))

    def _take(self, found: tuple[list[str], list[list[str]]]) -> None:
        """Tags and message from what the file holds."""
        self.tagged, strange = {}, []
        for query, scenario in (get_tag(found[0], row) for row in found[1]):
            if query not in self.rows_of:
                strange.append(f"no query of this split: {query or 'a line without a name'}")
            elif scenario not in SCENARIOS:
                strange.append(f"unknown scenario {scenario!r} of {query}")
            else:
                self.tagged.setdefault(query, set()).add(scenario)
        more = f" and {len(strange) - 2} more" if len(strange) > 2 else ""
        kept = f"{self.path.name} holds lines that are kept, but not used: {'; '.join(strange[:2])}{more}."
        self.message = kept if strange else ""


def read_rows(path: str | Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV of tags, as they are; the standard header and no rows where there is no file.

    Raises:
        ValueError: it is no text in UTF-8, or its header lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        return list(HEADER), []
    try:
        text = path.read_text(encoding="utf-8-sig")  # -sig: spreadsheets put a mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); save it again as CSV UTF-8") from None
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    if not rows:
        return list(HEADER), []
    header = [cell.strip() for cell in rows[0]]
    if not set(HEADER) <= set(header):
        raise ValueError(f"{path} begins with {','.join(rows[0])}; expected the header {','.join(HEADER)}")
    return header, rows[1:]


def get_tag(header: Sequence[str], row: Sequence[str]) -> tuple[str, str]:
    """Query and scenario of a row; "" where it is too short."""
    cells = dict(zip(header, row, strict=False))
    return base_name(cells.get("query", "").strip()), cells.get("scenario", "").strip()


def apply_change(header: Sequence[str], rows: list[list[str]], change: Change) -> list[list[str]]:
    """The rows after a change; other columns of a new row stay empty."""
    tag = (change.query, change.scenario)
    there = [get_tag(header, row) == tag for row in rows]
    if not change.on:
        return [row for row, same in zip(rows, there, strict=True) if not same]
    new = [dict(zip(HEADER, tag, strict=True)).get(column, "") for column in header]
    return rows if any(there) else [*rows, new]


def format_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """A CSV in UTF-8."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue().encode()
