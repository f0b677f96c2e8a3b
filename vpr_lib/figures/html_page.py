"""Sections of text, tables and pictures -> one HTML page that opens from a file, without scripts.

Everything is escaped here, so a file name or label may hold any character.
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from vpr_lib.atomic_files import write_atomically

EMBED_BYTES = 8_000_000  # pictures up to this total go into the page, which is then one file to hand in

STYLE = """
body { max-width: 62rem; margin: 0 auto; padding: 1rem; background: #fff; color: #1a1a1a;
       font: 16px/1.5 system-ui, sans-serif; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, .caption { color: #444; font-size: 0.9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; margin: 0.5rem 0; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #666; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f5f5f5; padding: 0.5rem; font-size: 0.85rem; }
"""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first row the head."""

    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture in the page's folder."""

    path: Path
    alt: str  # what there is to see, for those who don't
    caption: str = ""


@dataclass(frozen=True)
class Details:
    """Lines of text that open with a click."""

    summary: str
    lines: Sequence[str]


Block = Text | Table | Picture | Details


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    blocks: Sequence[Block] = field(default_factory=list)


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: of the page; its pictures lie in the same folder.
        title: of the page.
        sections: in order.

    Returns:
        The path.
    """
    path = Path(path)
    pictures = [block.path for section in sections for block in section.blocks if isinstance(block, Picture)]
    embed = sum(picture.stat().st_size for picture in pictures) * 4 / 3 < EMBED_BYTES  # base64 is a third longer
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>",
    ]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [render(block, embed) for block in section.blocks]
    parts.append("</body>\n</html>\n")
    # A file name that isn't UTF-8 must not cost the page.
    write_atomically(path, "\n".join(parts).encode(errors="replace"))
    return path


def render(block: Block, embed: bool) -> str:
    """HTML of one block."""
    match block:
        case Text(text):
            return f"<p>{html.escape(text)}</p>"
        case Table(rows, caption):
            return render_table(rows, caption)
        case Picture(path, alt, caption):
            data = f"data:{mime_type(path)};base64,{base64.b64encode(path.read_bytes()).decode()}" if embed else ""
            source = data or html.escape(quote(path.name))
            below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
            return f'<figure><img src="{source}" alt="{html.escape(alt)}">{below}</figure>'
        case Details(summary, lines):
            text = html.escape("\n".join(lines))
            return f"<details><summary>{html.escape(summary)}</summary><pre>{text}</pre></details>"


def render_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """HTML of a table; it scrolls by itself where the screen is narrow."""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in rows[0])
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows[1:])
    below = f'<p class="caption">{html.escape(caption)}</p>' if caption else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{below}'


def mime_type(path: Path) -> str:
    """Of a picture, by its suffix."""
    return "image/png" if path.suffix.lower() == ".png" else "image/jpeg"
