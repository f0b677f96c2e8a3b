"""Figures in the prose of a notebook: each is a constant of the method, or found in what the notebook prints."""

import re

NUMBER = r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?!\w|[.,]\d)"
BOX = "> **Recorded on our machine**"

REFERENCE = r"\*\*\d\.\d\*\*|[Nn]otebooks? \d\d(?:,? (?:to|and) \d\d)*|[Ss]ections?\s\d\.\d"

# Figures of the prose that no cell prints: sizes of published sets and results, years of papers, thresholds.
CONSTANTS = {
    "01": {"24", "4000000", "30", "50", "7"},  # bits of float32 and a northing; radii; a place of an example
    "02": {"0.05", "0.001", "19000"},  # levels of significance; steps of the study's runs
    "03": {"2019", "15", "0.8", "7993", "62000"},  # a paper; steps of exercise 3.2; published grid; gsv_xs
    "04": {"530000", "2.8", "95"},  # gsv_xs; Fig. 3; a target
    "05": {"25"},  # the radius
    "06": {"25", "110", "120", "128", "2024"},  # the radius; examples; SIFT; a paper
}


def read_numbers(text):
    """Numbers as written, without thousands separators."""
    return {number.replace(",", "").rstrip(",") for number in re.findall(NUMBER, text)}


def split_prose(notebook):
    """Text of the Markdown cells outside of boxes, and that of the boxes; code, formulas, headings, links are left out.

    The first cell, whose table says how long a notebook takes, and solutions are left out, too.
    """
    lines = []
    for cell in notebook.cells[1:]:
        if cell.cell_type == "markdown" and not cell.source.startswith("<details>"):
            text = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$]+\$|`[^`]*`|\]\([^)]*\)", " ", cell.source, flags=re.DOTALL)
            text = re.sub(REFERENCE, " ", text)
            lines += [line for line in text.splitlines() if not line.startswith("#")]
    boxes = [line for line in lines if line.startswith(">")]
    return "\n".join(line for line in lines if not line.startswith(">")), "\n".join(boxes)


def read_printed(notebook):
    """Text of all outputs."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/markdown", "")]
    return "\n".join(texts)


def find_unexplained(name, committed, executed):
    """Figures of the prose that are neither constants nor in the code nor printed on both machines."""
    code = "\n".join(cell.source for cell in committed.cells if cell.cell_type == "code")
    printed = read_numbers(read_printed(committed)) & read_numbers(read_printed(executed))
    return read_numbers(split_prose(committed)[0]) - printed - read_numbers(code) - CONSTANTS[name[:2]]


def find_unrecorded(committed, *documents):
    """Figures in boxes that are neither in the notebook's own outputs nor in the documents of measurements."""
    recorded = read_numbers(read_printed(committed)).union(*map(read_numbers, documents))
    return read_numbers(split_prose(committed)[1]) - recorded
