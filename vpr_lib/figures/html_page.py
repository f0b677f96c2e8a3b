"""Sections of text, tables and pictures -> one HTML page without scripts.

All text is escaped here, so a file name or label may hold any character.
"""

import base64
import html
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vpr_lib.atomic_files import write_atomically

EMBED_BYTES = 8_000_000  # pictures up to this total are embedded, so that the page is a single file

_STYLE = """
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
class Table:
    """Rows of cells, the first row is the head."""

    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture in the page's folder."""

    path: Path
    alt: str  # description for readers who cannot see it
    caption: str = ""


@dataclass(frozen=True)
class Details:
    """Lines of text below a summary that opens them."""

    summary: str
    lines: Sequence[str]


Block = str | Table | Picture | Details  # a str is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block] = ()

    def list_blocks(self, kind: type) -> list[Block]:
        """The blocks of one type."""
        return [block for block in self.blocks if isinstance(block, kind)]


def write_page(path: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Write the page atomically; returns its path.

    Args:
        path: path of the page; its pictures lie in the same folder.
        title: title of the page.
        sections: its sections, in order.
    """
    path = Path(path)
    pictures = [block.path for section in sections for block in section.list_blocks(Picture)]
    embed = sum(picture.stat().st_size for picture in pictures) * 4 / 3 < EMBED_BYTES  # base64 is a third longer
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>",
    ]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [_render_block(block, embed) for block in section.blocks]
    parts.append("</body>\n</html>\n")
    # Names of files that are not valid UTF-8 hold characters that cannot be encoded.
    write_atomically(path, "\n".join(parts).encode(errors="replace"))
    return path


def _render_block(block: Block, embed: bool) -> str:
    match block:
        case str():
            return f"<p>{html.escape(block)}</p>"
        case Table(rows, caption):
            return render_table(rows, caption)
        case Picture(path, alt, caption):
            source = html.escape(quote(path.name))
            if embed:
                kind = mimetypes.guess_type(path.name)[0]
                source = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
            below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
            return f'<figure><img src="{source}" alt="{html.escape(alt)}">{below}</figure>'
        case Details(summary, lines):
            text = html.escape("\n".join(lines))
            return f"<details><summary>{html.escape(summary)}</summary><pre>{text}</pre></details>"


def render_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """HTML of a table, which scrolls sideways on a narrow screen."""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in rows[0])
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    below = f'<p class="caption">{html.escape(caption)}</p>' if caption else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{below}'
