"""Tags: scenarios assigned to queries by hand, in the CSV `<runs>/tags-<split>.csv` with the columns query, scenario.

Tags do not depend on the model, so all runs of a folder share the file. It is read again before each change and
written at once, so two notebooks may tag at the same time. Rows with unknown names or scenarios are kept.
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
    """A tag added to a query or removed from it."""

    query: str  # file name, without folders
    scenario: str  # key of `SCENARIOS`
    added: bool


class Tags:
    """The tags of a split's queries.

    Args:
        path: path of the CSV, created with the first tag.
        queries: Q names of the split's queries; folders are ignored.

    Attributes:
        message: a problem with the file to show to the user; "" if there is none.
        rows_of: {file name of a query: its rows}.
    """

    def __init__(self, path: str | Path, queries: Sequence[str]) -> None:
        self.path = Path(path)
        self.rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(queries):
            self.rows_of.setdefault(base_name(name), []).append(row)
        self.message = ""
        self._num_queries = len(queries)
        self._tagged: dict[str, set[str]] = {}  # query -> scenarios
        self._unsaved: list[Change] = []
        self._history: list[Change] = []
        try:
            self._load(*_read_rows(self.path))
        except (OSError, ValueError) as error:
            self.message = f"{error}. New tags are not written until the file is repaired."

    def list_scenarios(self, query: str) -> list[str]:
        """The scenarios of a query, in the order of `SCENARIOS`."""
        return [scenario for scenario in SCENARIOS if scenario in self._tagged.get(base_name(query), ())]

    def mark_queries(self, scenario: str) -> np.ndarray:
        """(Q,) bool, the queries tagged with a scenario."""
        marked = np.zeros(self._num_queries, dtype=bool)
        for query, scenarios in self._tagged.items():
            if scenario in scenarios:
                marked[self.rows_of.get(query, [])] = True
        return marked

    def toggle(self, query: str, scenario: str) -> Change:
        """Add a tag, or remove it if it exists. If the file can't be written, `message` says so.

        Raises:
            ValueError: the scenario is unknown; the message lists the valid ones.
        """
        check_choice("scenario", scenario, SCENARIOS)
        query = base_name(query)
        change = Change(query, scenario, scenario not in self._tagged.get(query, ()))
        self._history.append(change)
        self._save([change])
        return change

    def undo(self) -> Change | None:
        """Revert the last change of this session and return it; None if there is none."""
        if not self._history:
            return None
        change = self._history.pop()
        self._save([change._replace(added=not change.added)])
        return change

    def merge(self, path: str | Path) -> int:
        """Add the tags of another CSV, for example one exported by an HTML page; returns the number of new tags.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: it is not a CSV of tags.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no tags at {path}; expected a CSV with the columns query,scenario")
        header, rows = _read_rows(path)
        new = []
        for query, scenario in dict.fromkeys(_get_tag(header, row) for row in rows):
            if scenario in SCENARIOS and scenario not in self._tagged.get(query, ()):
                new.append(Change(query, scenario, True))
        self._save(new)
        return len(new)

    def _save(self, changes: list[Change]) -> None:
        """Apply changes and write the file, including changes that could not be written before."""
        self._unsaved += changes
        for change in changes:
            scenarios = self._tagged.setdefault(change.query, set())
            if change.added:
                scenarios.add(change.scenario)
            else:
                scenarios.discard(change.scenario)
        try:
            header, rows = _read_rows(self.path)
            for change in self._unsaved:
                rows = _apply_change(header, rows, change)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, _format_rows(header, rows))
        except (OSError, ValueError) as error:
            self.message = f"Tags are kept in this session only: {error}"
            return
        self._unsaved = []
        self._load(header, rows)

    def _load(self, header: list[str], rows: list[list[str]]) -> None:
        """Set tags and message from the rows of the file."""
        self._tagged = {}
        problems = []
        for query, scenario in (_get_tag(header, row) for row in rows):
            if query not in self.rows_of:
                problems.append(f"no query of this split: {query or 'a row without a name'}")
            elif scenario not in SCENARIOS:
                problems.append(f"unknown scenario {scenario!r} of {query}")
            else:
                self._tagged.setdefault(query, set()).add(scenario)
        self.message = ""
        if problems:
            more = f" and {len(problems) - 2} more" if len(problems) > 2 else ""
            self.message = f"{self.path.name} has rows that are kept but not used: {'; '.join(problems[:2])}{more}."


def _read_rows(path: str | Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV of tags; the standard header and no rows if the file does not exist."""
    path = Path(path)
    if not path.is_file():
        return list(HEADER), []
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); save it again as CSV UTF-8") from None
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    if not rows:
        return list(HEADER), []
    header = [cell.strip() for cell in rows[0]]
    if not set(HEADER) <= set(header):
        raise ValueError(f"{path} begins with {','.join(rows[0])}; expected the header {','.join(HEADER)}")
    return header, rows[1:]


def _get_tag(header: Sequence[str], row: Sequence[str]) -> tuple[str, str]:
    """Query and scenario of a row; "" if it is too short."""
    cells = dict(zip(header, row, strict=False))
    return base_name(cells.get("query", "").strip()), cells.get("scenario", "").strip()


def _apply_change(header: Sequence[str], rows: list[list[str]], change: Change) -> list[list[str]]:
    """The rows after a change; other columns of a new row are empty."""
    tag = (change.query, change.scenario)
    others = [row for row in rows if _get_tag(header, row) != tag]
    if not change.added:
        return others
    cells = {"query": change.query, "scenario": change.scenario}
    return rows if len(others) < len(rows) else [*rows, [cells.get(column, "") for column in header]]


def _format_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue().encode()
