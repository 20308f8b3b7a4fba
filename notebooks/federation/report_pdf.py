"""The report as a PDF to print or send: the same content as the page, set on A4.

The same content gives the same bytes: the file carries no time of its own.
"""

from __future__ import annotations

import datetime as dt
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from fpdf import FPDF
from fpdf.enums import TableBordersLayout
from fpdf.fonts import FontFace, TTFFont

from federation.release import Release
from federation.report_figures import Drawing, rounded
from federation.report_page import Page, ReportContent, measured_tables, page_of

LONGEST = 600
"""Characters of a cell: a row that is higher than a page cannot be set."""
MARGIN_MM, WIDTH_MM, GAP_MM = 18.0, 174.0, 6.0
INK, GREY, RULE = (28, 33, 39), (93, 102, 112), (214, 218, 222)
ACCENT, TINT = (31, 78, 121), (244, 246, 248)


def render_pdf(content: ReportContent) -> bytes:
    """The document as bytes."""
    document = _Document(content.title)
    try:
        _write(document, content)
        return bytes(document.output())
    finally:
        document.close_fonts()


def _write(document: _Document, content: ReportContent) -> None:
    page = page_of(content)
    document.opening(content, page)
    if page.figures:
        document.heading("Round by round, and hospital by hospital")
        document.figures(page.figures)
    if page.missing:
        document.heading("Missing")
        document.pairs(page.missing)
    for name, table in measured_tables(content).items():
        is_model = content.comparison is not None and name in content.comparison.models
        document.heading(f"All measures of “{name}”" if is_model else name)
        rows = zip(table.index, table.to_numpy().tolist(), strict=True)
        document.table(
            ["", *table.columns], [[str(t), *map(str, row)] for t, row in rows], size=6.4
        )
    if content.release is not None:
        _write_release(document, content.release, page)
    document.heading("What was refused")
    refused = [(f"{r['site']}\n{r['rule']}", r["sentence"]) for r in content.refusals]
    document.pairs(refused or [("", "No refusal was recorded.")])
    document.heading("Who approved what")
    document.table(
        ["Site", "Decision", "Request", "Policy", "Training images"],
        [
            [
                s["title"], s["decision"], s["request"], s["policy"],
                "suppressed" if s["images"] is None else f"{s['images']:,}",
            ]
            for s in content.sites
        ],
    )  # fmt: skip
    if content.notes:
        document.heading("How to read the numbers")
        for note in content.notes:
            document.paragraph(f"•  {note}")
    document.heading("Provenance")
    document.pairs(list(content.provenance.items()))
    if content.audit:
        document.heading("Audit")
        document.pairs([
            (
                log["title"],
                f"{log['lines']:,} lines, "
                + ("chain intact and signatures valid" if log["verified"]
                   else "NOT verified: do not rely on this log")
                + f"\npublic key {log['public_key']}",
            )
            for log in content.audit
        ])  # fmt: skip


def _write_release(document: _Document, release: Release, page: Page) -> None:
    document.heading("Leakage test")
    for sentence in (release.sentence, *release.reasons):
        document.paragraph(sentence)
    table = release.table().fillna("–")
    rows = zip(table.index, table.to_numpy().tolist(), strict=True)
    document.table(["", *table.columns], [[str(t), *map(str, row)] for t, row in rows], size=6.4)
    if page.attacks is not None:
        document.figures([page.attacks])


class _Document(FPDF):
    """An A4 document in one typeface, with the title and a page number at the foot."""

    def __init__(self, title: str) -> None:
        super().__init__(format="A4")
        logging.getLogger("fpdf").setLevel(logging.ERROR)  # characters that the font lacks
        logging.getLogger("fontTools").setLevel(logging.ERROR)
        fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self.add_font("text", "", fonts / "DejaVuSans.ttf")
        self.add_font("text", "B", fonts / "DejaVuSans-Bold.ttf")
        self.set_creation_date(dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
        self.set_title(title)
        self.set_margins(MARGIN_MM, MARGIN_MM)
        self.set_auto_page_break(True, MARGIN_MM)
        self._foot = " ".join(title.split())
        self.add_page()

    def close_fonts(self) -> None:
        """Close the files of the typeface, which `fpdf` keeps open."""
        for font in self.fonts.values():
            if isinstance(font, TTFFont):
                font.ttfont.close()

    def footer(self) -> None:
        """Title and page number."""
        self.set_y(-12)
        self._font(7, GREY)
        self.cell(WIDTH_MM - 20, 4, self._foot[:110])
        self.cell(20, 4, str(self.page_no()), align="R")

    def opening(self, content: ReportContent, page: Page) -> None:
        """Title, question, facts, the table, and privacy."""
        self._font(8, ACCENT, bold=True)
        self._lines(content.kind, 5)
        self._font(18, INK, bold=True)
        self._lines(content.title, 8)
        self._font(10, GREY)
        self._lines(content.question, 5.2)
        self.ln(2)
        self._font(9, INK)
        self._lines("   ·   ".join(f"{number} {what}" for number, what in page.facts), 5)
        self.ln(2)
        if page.table["rows"]:
            columns = page.table["columns"]
            rows = [
                [row["model"], *(f"{rounded(auc)}{' ▸' if best else ''}\n{second}"
                                 for _, auc, second, best in row["cells"])]
                for row in page.table["rows"]
            ]  # fmt: skip
            self.table(["Model", *columns], rows, size=8 if len(columns) < 7 else 6)
            self._font(7.5, GREY)
            self._lines(page.caption.replace("bold and marked", "marked ▸"), 4)
        self.ln(2)
        self._font(9, INK)
        self._lines(f"Privacy. {content.privacy}", 4.8)
        if content.sentence:
            self.ln(1)
            self._lines(content.sentence, 4.8)

    def heading(self, text: str) -> None:
        """A heading with room above; it stays with what follows."""
        if self.will_page_break(24):
            self.add_page()
        self.ln(5)
        self._font(12, INK, bold=True)
        self._lines(text, 6)
        self.ln(1)

    def paragraph(self, text: str) -> None:
        """Running text."""
        self._font(8.5, INK)
        self._lines(text, 4.6)

    def figures(self, drawings: Sequence[Drawing]) -> None:
        """Figures two in a row, wide ones alone, each under its title."""
        waiting = list(drawings)
        while waiting:
            pair = waiting[: 1 if waiting[0].is_wide else 2]
            pair = pair[:1] if pair[-1].is_wide else pair
            waiting = waiting[len(pair) :]
            width = WIDTH_MM if pair[0].is_wide else (WIDTH_MM - GAP_MM) / 2
            heights = [drawing.height / drawing.width * width for drawing in pair]
            if self.will_page_break(max(heights) + 14):
                self.add_page()
            top = self.get_y()
            for column, (drawing, height) in enumerate(zip(pair, heights, strict=True)):
                left = MARGIN_MM + column * (width + GAP_MM)
                self.set_xy(left, top)
                self._font(9, INK, bold=True)
                self.cell(width, 5, drawing.title)
                self.set_xy(left, top + 5)
                self._font(6.8, GREY)
                self.multi_cell(width, 3.3, drawing.says, align="L")
                self.image(io.BytesIO(drawing.png), left, top + 14, w=width, h=height)
            self.set_xy(MARGIN_MM, top + 16 + max(heights))

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Names on the left, texts on the right."""
        with super().table(
            width=WIDTH_MM, col_widths=(48, 126), first_row_as_headings=False, line_height=4.4,
            borders_layout=TableBordersLayout.HORIZONTAL_LINES, text_align="L", padding=(1, 1),
        ) as table:  # fmt: skip
            self.set_draw_color(*RULE)
            self._font(8, INK)
            for name, text in pairs:
                row = table.row()
                row.cell(_cut(name), style=FontFace(color=GREY))
                row.cell(_cut(text))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], size: float = 8) -> None:  # type: ignore[override]
        """A table with a head; the first column is text, the others are numbers."""
        self._font(size, INK)
        self.set_draw_color(*RULE)
        first = 1.6 if len(head) > 6 else 1.4
        with super().table(
            width=WIDTH_MM, col_widths=(first, *[1.0] * (len(head) - 1)), line_height=size * 0.52,
            borders_layout=TableBordersLayout.HORIZONTAL_LINES, padding=(1, 1),
            text_align=("LEFT", *["RIGHT"] * (len(head) - 1)),
            headings_style=FontFace(emphasis="", color=GREY, fill_color=TINT),
        ) as table:  # fmt: skip
            for line in (head, *rows):
                row = table.row()
                for text in line:
                    row.cell(_cut(text))

    def _font(self, size: float, colour: tuple[int, int, int], *, bold: bool = False) -> None:
        self.set_font("text", "B" if bold else "", size)
        self.set_text_color(*colour)

    def _lines(self, text: str, height: float) -> None:
        self.multi_cell(WIDTH_MM, height, text, align="L", new_x="LMARGIN", new_y="NEXT")


def _cut(text: str) -> str:
    """A cell's text; a long one ends with an ellipsis, and is whole on the page."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
