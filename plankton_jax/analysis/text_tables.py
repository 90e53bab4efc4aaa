"""A table of text as Markdown, csv and LaTeX. Writes its own files and touches nothing else."""

import csv
import dataclasses
import io
import itertools
import pathlib

from plankton_jax.files import replacing


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of text under headings.

    Attributes:
      name: of its files.
      title, note: what it shows, and how to read it.
      columns, rows: headings, and lines of as many cells.
      groups: of each column, a heading above it and its neighbours of the same group, or "".
    """

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...] = ()

    def headings(self) -> tuple[str, ...]:
        """Of each column, its group's before its own, for formats with one line of headings."""
        groups = self.groups or ("",) * len(self.columns)
        pairs = zip(groups, self.columns, strict=True)
        return tuple(f"{group} {column}".strip() for group, column in pairs)

    def markdown(self) -> str:
        """As a table of GitHub's Markdown, with title and note."""
        lines = [self.headings(), ("---",) + ("---:",) * (len(self.columns) - 1), *self.rows]
        cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
        table = "\n".join(f"| {line} |" for line in cells)
        return f"### {self.title}\n\n{table}\n\n{self.note}\n"

    def csv(self) -> str:
        """As comma-separated values with a line of headings."""
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows((self.headings(), *self.rows))
        return file.getvalue()

    def write(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Writes it as .md, .csv and .tex; the files."""
        written = []
        for suffix, text in (
            (".md", self.markdown()),
            (".csv", self.csv()),
            (".tex", self.latex()),
        ):
            path = folder / f"{self.name}{suffix}"
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(path)
        return written

    def latex(self) -> str:
        """As a `table` environment that needs the package booktabs."""
        lines = [" & ".join(map(_latex, line)) + r" \\" for line in (self.columns, *self.rows)]
        body = [*self._latex_groups(), lines[0], r"\midrule", *lines[1:]]
        return "\n".join(
            (
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_latex(self.title)}. {_latex(self.note)}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
                r"\toprule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            )
        )

    def _latex_groups(self) -> list[str]:
        """The line of groups, each across its columns, and the rules below them."""
        cells, rules, start = [], [], 1
        for group, members in itertools.groupby(self.groups):
            count = len(list(members))
            if group:
                cells.append(rf"\multicolumn{{{count}}}{{c}}{{{_latex(group)}}}")
                rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
            else:
                cells += [""] * count
            start += count
        return [" & ".join(cells) + r" \\", "".join(rules)] if rules else []


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
