"""Sections of text, tables and pictures -> one HTML page without scripts. All text is escaped here."""

import base64
import mimetypes
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple
from urllib.parse import quote

from vpr_lib.atomic_files import write_atomically

EMBED_BYTES = 8_000_000  # pictures up to this total are embedded, so that the page is a single file


class Table(NamedTuple):
    """Rows of cells; the first row is the head."""

    rows: Sequence[Sequence[str]]
    caption: str = ""


class Picture(NamedTuple):
    """A picture in the page's folder."""

    path: Path
    alt: str  # description for readers who cannot see it
    caption: str = ""


class Details(NamedTuple):
    """Lines of text below a summary that opens them."""

    summary: str
    lines: Sequence[str]


class Tables(NamedTuple):
    """Tables side by side where the page is wide enough."""

    tables: Sequence[Table]


class Links(NamedTuple):
    """A line of links to files beside the page, or to other addresses."""

    addresses: Mapping[str, str]  # {text: address}


Block = str | Table | Tables | Picture | Details | Links  # a str is a paragraph


class Section(NamedTuple):
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block] = ()

    def list_blocks(self, kind: type) -> list[Block]:
        """The blocks of one type."""
        return [block for block in self.blocks if isinstance(block, kind)]


def write_page(path: Path, title: str, lead: Sequence[Block], sections: Sequence[Section]) -> Path:
    """Write a page, whose pictures lie in the same folder, atomically; returns its path.

    Args:
        path: of the page.
        title: its heading.
        lead: blocks between the heading and the table of contents.
        sections: with different titles; each is listed in the contents.
    """
    everything = Section("", [*lead, *(block for section in sections for block in section.blocks)])
    pictures = [block.path for block in everything.list_blocks(Picture)]
    embed = sum(picture.stat().st_size for picture in pictures) * 4 / 3 < EMBED_BYTES  # base64 is a third longer
    anchors = {section.title: re.sub(r"\W+", "-", section.title).strip("-").lower() for section in sections}
    contents = [f'<li><a href="#{quote(anchor)}">{escape(text)}</a></li>' for text, anchor in anchors.items()]
    parts = [_render_block(block, embed) for block in lead]
    parts.append(f'<nav aria-label="Contents"><ul>{"".join(contents)}</ul></nav>')
    for section in sections:
        heading = f'<h2 id="{escape(anchors[section.title])}">{escape(section.title)}</h2>'
        parts += [heading, *(_render_block(block, embed) for block in section.blocks)]
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    page = template.substitute(title=escape(title), body="\n".join(parts))
    # Names of files that are not valid UTF-8 hold characters that cannot be encoded.
    write_atomically(path, page.encode(errors="replace"))
    return path


def _render_block(block: Block, embed: bool) -> str:
    match block:
        case Table(rows, caption):
            return render_table(rows, caption)
        case Tables(tables):
            parts = [f"<div>{render_table(*table)}</div>" for table in tables]
            return f'<div class="beside">{"".join(parts)}</div>'
        case Links(addresses):
            links = [f'<a href="{escape(address)}">{escape(text)}</a>' for text, address in addresses.items()]
            return f"<p>{' · '.join(links)}</p>"
        case Picture(path, alt, caption):
            source = escape(quote(path.name))
            if embed:
                kind = mimetypes.guess_type(path.name)[0]
                source = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
            below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
            return f'<figure><img src="{source}" alt="{escape(alt)}">{below}</figure>'
        case Details(summary, lines):
            text = escape("\n".join(lines))
            return f"<details><summary>{escape(summary)}</summary><pre>{text}</pre></details>"
    return f"<p>{escape(block)}</p>"


def render_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    """HTML of a table, which scrolls sideways on a narrow screen."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    below = f'<p class="caption">{escape(caption)}</p>' if caption else ""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{below}'
