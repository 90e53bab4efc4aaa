"""Tables of one or more evaluated runs, in the report's layout and beside its numbers.

    python -m plankton_jax.tables --runs runs/flat runs/bacnn runs/sbacnn
    python -m plankton_jax.tables --runs runs/* --split test --decoder path --out tables

Reads the predictions that `evaluate` wrote; runs of one tree come into one set of tables. Prints
Markdown, and writes each table as .md, .csv and .tex, and of every run the effective hierarchy (who
was given which nodes of neighbouring levels) as .svg, .png and a page that can be explored, into
`--out`. No network is run.
"""

import argparse
import pathlib
from typing import TYPE_CHECKING

from plankton_jax.command import command_parser, run_command
from plankton_jax.errors import raise_all
from plankton_jax.names import DECODERS

if TYPE_CHECKING:
    from plankton_jax.analysis.predictions import Predictions


def main(arguments: list[str]) -> int:
    """Reads the arguments and the predictions, prints and writes."""
    parser = command_parser("plankton_jax.tables", __doc__ or "")
    parser.add_argument("--runs", type=pathlib.Path, nargs="+", required=True, help="directories")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument(
        "--decoder",
        choices=tuple(name for name in DECODERS),
        help="how nodes follow from the logits of all levels; default: as each was evaluated",
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tables"), help="folder")
    options = parser.parse_args(arguments)
    write_tables(options)
    return 0


def write_tables(options: argparse.Namespace) -> None:
    """All tables and figures of the runs."""
    from plankton_jax.analysis.effective_hierarchy import write_figures
    from plankton_jax.analysis.hierarchy import measure
    from plankton_jax.analysis.report_tables import report_tables, shown_name

    runs = _read(options.runs, options.split)
    written = []
    for table in report_tables(runs, options.decoder):
        print(table.markdown())
        written += table.write(options.out)
    for name, predictions in runs:
        if predictions.taxonomy.depth > 1:
            found = measure(predictions, options.decoder)
            title = shown_name(name, predictions, options.decoder)
            stem = "_".join(filter(None, (_file_name(name), title.removeprefix(name).strip(" ()"))))
            written += write_figures(found, title, options.out / f"{stem}_hierarchy")
    for path in written:
        print(f"wrote {path}")


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def _read(folders: list[pathlib.Path], split: str) -> list[tuple[str, "Predictions"]]:
    """Names and predictions of the runs.

    Raises:
      UserError: a run that was not evaluated, runs of different trees or parts, two of one name;
        all at once.
    """
    from plankton_jax.analysis.predictions import read_predictions

    problems, runs = [], []
    for folder in folders:
        path = folder / "predictions" / f"{split}.parquet"
        if not path.is_file():
            problems.append(
                f"--runs {folder}: there is no predictions/{split}.parquet. Make it: python -m "
                f"plankton_jax.evaluate --run {folder} --split {split}"
            )
            continue
        runs.append((folder.resolve().name, read_predictions(path)))
    for name, predictions in runs[1:]:
        first_name, first = runs[0]
        if predictions.taxonomy.to_json() != first.taxonomy.to_json():
            problems.append(
                f"--runs {name}: its tree is not that of {first_name}. Make tables of runs on one "
                "data set and tree at a time."
            )
        elif predictions.num_examples != first.num_examples:
            problems.append(
                f"--runs {name}: {predictions.num_examples} images were evaluated, of {first_name} "
                f"{first.num_examples}. Runs to compare need one split."
            )
        elif predictions.digest != first.digest:
            problems.append(
                f"--runs {name}: other images, or the same with other labels, were evaluated than "
                f"of {first_name}. Runs to compare need one split."
            )
    names = [name for name, _ in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        problems.append(f"--runs: {', '.join(twice)} twice; rename one of the directories.")
    raise_all(problems)
    return runs


if __name__ == "__main__":
    run_command(main)
