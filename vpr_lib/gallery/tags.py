"""Tags: scenarios assigned to queries by hand, in `<runs>/tags-<data root>-<split>.csv`, columns query and scenario.

Tags do not depend on the model, so all runs of a folder share the file of a data root. It is read again before each
change and written at once, so two notebooks may tag at the same time. Rows with unknown names or scenarios are kept.
"""

import contextlib
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vpr_lib.analysis.scenarios import SCENARIOS, base_name
from vpr_lib.checked_files import is_sealed, write_sealed
from vpr_lib.options import check_choice

HEADER = ["query", "scenario"]


class Change(NamedTuple):
    """A tag added to a query or removed from it."""

    query: str  # file name, without folders
    scenario: str  # key of `SCENARIOS`
    added: bool


def open_tags(runs_dir: Path, data_root: Path, split: str, queries: Sequence[str]) -> "Tags":
    """Open the tags of a split of a data root, beside its runs.

    Files of earlier versions, `tags-<split>.csv`, don't name the data root: the tags of these queries are taken over.
    """
    end = f"{split.replace('/', '-')}.csv"
    tags = Tags(runs_dir / f"tags-{data_root.resolve().name}-{end}", queries)
    earlier = runs_dir / f"tags-{end}"
    if earlier.is_file() and not tags.path.exists():
        with contextlib.suppress(ValueError):  # no table of tags; it is left alone
            tags.merge(earlier)
    return tags


def read_tags(path: str | Path) -> set[tuple[str, str]]:
    """The tags of a CSV, (file name of a query, scenario); those of unknown scenarios are left out.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a CSV of tags.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no tags at {path}; expected a CSV with the columns query,scenario")
    return {tag for tag in _list_tags(*_read_rows(Path(path))) if tag[1] in SCENARIOS}


class Tags:
    """The tags of a split's queries, given by their Q names; the CSV is created with the first tag."""

    def __init__(self, path: str | Path, queries: Sequence[str]) -> None:
        self.path = Path(path)
        self.message = ""  # a problem with the file to show to the user; "" if there is none
        self.names = np.array([base_name(name) for name in queries], dtype=str)  # (Q,) file names
        self._tags: set[tuple[str, str]] = set()  # (query, scenario)
        self._unsaved: list[Change] = []
        self._history: list[Change] = []
        try:
            self._use_rows(*_read_rows(self.path), self._check_seal())
        except (OSError, ValueError) as error:
            self.message = f"{error}. New tags are not written until the file is repaired."

    def list_scenarios(self, query: str) -> list[str]:
        """The scenarios of a query, in the order of `SCENARIOS`."""
        return [scenario for scenario in SCENARIOS if (base_name(query), scenario) in self._tags]

    def mark_queries(self, scenario: str) -> np.ndarray:
        """(Q,) bool, the queries tagged with a scenario."""
        tagged = {query for query, tag in self._tags if tag == scenario}
        return np.array([name in tagged for name in self.names.tolist()], dtype=bool)

    def toggle(self, query: str, scenario: str) -> Change:
        """Add a tag, or remove it if it exists. If the file can't be written, `message` says so.

        Raises:
            ValueError: the scenario is unknown; the message lists the valid ones.
        """
        check_choice("scenario", scenario, SCENARIOS)
        change = Change(base_name(query), scenario, scenario not in self.list_scenarios(query))
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
        """Add another CSV's tags of these queries, for example those exported by a page; returns how many are new.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: it is not a CSV of tags.
        """
        names = set(self.names.tolist())
        new = [Change(*tag, True) for tag in sorted(read_tags(path) - self._tags) if tag[0] in names]
        self._save(new)
        return len(new)

    def _save(self, changes: list[Change]) -> None:
        """Apply changes and write the file, including changes that could not be written before."""
        self._unsaved += changes
        self._tags -= {change[:2] for change in changes if not change.added}
        self._tags |= {change[:2] for change in changes if change.added}
        try:
            note = self._check_seal()
            header, rows = _read_rows(self.path)
            for query, scenario, added in self._unsaved:
                tags = _list_tags(header, rows)
                if not added:
                    rows = [row for row, tag in zip(rows, tags, strict=True) if tag != (query, scenario)]
                elif (query, scenario) not in tags:
                    rows.append([{"query": query, "scenario": scenario}.get(column, "") for column in header])
            buffer = io.StringIO(newline="")
            csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(self.path, buffer.getvalue().encode())
        except (OSError, ValueError) as error:
            self.message = f"Tags are kept in this session only: {error}"
            return
        self._unsaved = []
        self._use_rows(header, rows, note)

    def _check_seal(self) -> str:
        """A note if the file isn't as it was last saved, else ""."""
        is_changed = self.path.is_file() and not is_sealed(self.path, self.path.read_bytes())
        return f"{self.path.name} was edited or damaged since tags were last saved. " if is_changed else ""

    def _use_rows(self, header: list[str], rows: list[list[str]], note: str) -> None:
        """Set tags and message from the rows of the file and a note about it."""
        tags = _list_tags(header, rows)
        self._tags = set(tags)
        names = set(self.names.tolist())
        problems = []
        for query, scenario in tags:
            if query not in names:
                problems.append(f"no query of this split: {query or 'a row without a name'}")
            elif scenario not in SCENARIOS:
                problems.append(f"unknown scenario {scenario!r} of {query}")
        more = f" and {len(problems) - 2} more" if len(problems) > 2 else ""
        text = f"{self.path.name} has rows that are kept but not used: {'; '.join(problems[:2])}{more}."
        self.message = (note + (text if problems else "")).strip()


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV of tags; the standard header and no rows if the file does not exist or is empty."""
    rows = [HEADER]
    if path.is_file():
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:  # spreadsheets write a byte order mark
                rows = [row for row in csv.reader(file) if row] or rows
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is no CSV in UTF-8 ({error}); save it again as CSV UTF-8") from None
    header = [cell.strip() for cell in rows[0]]
    if not set(HEADER) <= set(header):
        raise ValueError(f"{path} begins with {','.join(rows[0])}; expected the header {','.join(HEADER)}")
    return header, rows[1:]


def _list_tags(header: list[str], rows: list[list[str]]) -> list[tuple[str, str]]:
    """Query and scenario of each row; "" if it is too short."""
    cells = [dict(zip(header, row, strict=False)) for row in rows]
    return [(base_name(row.get("query", "").strip()), row.get("scenario", "").strip()) for row in cells]
