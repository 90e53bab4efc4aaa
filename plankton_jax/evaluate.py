"""Evaluates a run on a part of its data set: predictions, tables and figures.

    python -m plankton_jax.evaluate --run runs/v5 --split test
    python -m plankton_jax.evaluate --run runs/v5 --split validation --checkpoint last --json
    python -m plankton_jax.evaluate --run runs/v5 --split test --views 8
    python -m plankton_jax.evaluate --run runs/bacnn --split test --attention

Writes `predictions/<split>.parquet` and `predictions/<split>_classes.csv`, two figures into
`figures/` and, for a tree of several levels, the report's tables into `tables/<split>/`, all in the
run directory; with --attention who of the branches listens to whom, as
`predictions/<split>_attention.csv`. With --json one object of metrics is printed and nothing else.
"""

import functools
import json
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from plankton_jax.command import (
    command_parser,
    config_hash,
    display_name,
    quiet_libraries,
    read_config,
    run_command,
)
from plankton_jax.config import Config
from plankton_jax.errors import UserError
from plankton_jax.names import DECODERS, UNLABELLED, own_decoder

if TYPE_CHECKING:
    from plankton_jax.analysis.predictions import Predictions
    from plankton_jax.experiment import Network, Training
    from plankton_jax.run_data import Data


def main(arguments: list[str]) -> int:
    """Reads the arguments, predicts, and writes what the predictions say."""
    parser = command_parser("plankton_jax.evaluate", __doc__ or "")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="a run directory")
    parser.add_argument(
        "--split",
        default="test",
        choices=("train", "validation", "test", UNLABELLED),
        help="unlabelled: of the images without a label; only their predictions are written",
    )
    parser.add_argument("--checkpoint", default="best", help="best (default), last, or a step")
    parser.add_argument(
        "--views",
        type=int,
        default=1,
        choices=(1, 2, 4, 8),
        help="average the probabilities over this many flips and quarter turns of each image",
    )
    parser.add_argument(
        "--decoder",
        choices=tuple(name for name in DECODERS if name != "oracle"),
        help="how nodes follow from the logits of all levels (plankton_jax/decoding.py); default: "
        "routed for the head sbacnn, leaf for coherent, argmax for the others",
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="of the heads bacnn and sbacnn: write the mean attention weights between branches",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options, overrides = parser.parse_known_args(arguments)
    config = _run_config(options.run, overrides)
    if options.attention:
        from plankton_jax import attention_table

        attention_table.refuse_without(config.model.head, options.split)
    quiet_libraries()
    predictions = predict(
        config,
        options.run,
        options.split,
        options.checkpoint,
        views=options.views,
        decoder=options.decoder,
        attention=options.attention,
    )
    if options.split == UNLABELLED:
        print(json.dumps({"split": UNLABELLED, "examples": predictions.num_examples})
              if options.json else f"wrote {predictions.path}")  # fmt: skip
        return 0
    report(predictions, options.run, options.json)
    if options.attention and not options.json:
        print(f"wrote {_attention_path(predictions.path)}")
    return 0


def _attention_path(predictions: pathlib.Path) -> pathlib.Path:
    return predictions.with_name(f"{predictions.stem}_attention.csv")


def _run_config(run: pathlib.Path, overrides: list[str]) -> Config:
    """The run's settings; only those that cannot change a result may be given anew."""
    from plankton_jax import run_directory

    saved, _ = run_directory.read_run(run)
    config = read_config(str(run / "config.json"), overrides)
    if config_hash(saved, results_only=True) != config_hash(config, results_only=True):
        raise UserError(
            f"{' '.join(overrides)}: evaluating takes a run as it was trained; allowed here: "
            "settings that cannot change a result, such as --config.data.source, "
            "--config.data.data_dir, --config.data.worker_count."
        )
    return config


def predict(
    config: Config,
    run: pathlib.Path,
    split: str,
    checkpoint: str,
    views: int = 1,
    decoder: str | None = None,
    attention: bool = False,
) -> "Predictions":
    """Runs the network over a part, writes the predictions table and returns it; with `attention`
    runs it once more for the attention between its branches, as a table beside it."""
    from plankton_jax import attention_table, experiment, run_data, run_directory
    from plankton_jax.analysis.predictions import Provenance, read_predictions

    _, saved = run_directory.read_run(run)
    notify = functools.partial(print, file=sys.stderr)
    data = run_data.open_data(config, notify=notify, noted=saved)
    run_directory.refuse_other_data(run, data.description())
    if not len(data.rows[split]):
        hint = (
            "every image has a label"
            if split == UNLABELLED
            else f"config.split of the run has method={config.split.method} and fractions="
            f"{config.split.fractions}"
        )
        raise UserError(f"--split {split}: it has no image; {hint}.")
    provenance = run_directory.read_provenance(run)
    training = experiment.make_training(
        config, data, fresh=False, provenance=provenance, notify=notify
    )
    params, model_state, step = _restored(config, training, run, checkpoint)
    provenance = Provenance(
        split=split,
        dataset=data.dataset.name,
        licence=data.dataset.metadata["licence"],
        run=run.resolve().name,
        model=display_name(config.model.name),
        step=step,
        config_hash=config_hash(config, results_only=True),
        taxonomy=data.taxonomy,
        training_counts=data.class_counts("train"),
        views=views,
        decoder=decoder or own_decoder(config.model.head),
        head=display_name(config.model.head),
    )
    path = run / "predictions" / f"{split}.parquet"
    network = training.network
    _write(path, config, data, network, params, model_state, provenance)
    if attention:
        options = {"split": split, "notify": notify}
        attention_table.write_attention(
            _attention_path(path), config, data, network, params, model_state, **options
        )
    return read_predictions(path)


def _restored(
    config: Config, training: "Training", run: pathlib.Path, checkpoint: str
) -> tuple[Any, Any, int]:
    """Parameters and model state of the chosen checkpoint, averages where there are any."""
    from plankton_jax.checkpoints import Checkpoints
    from plankton_jax.train_step import evaluated

    settings = config.checkpoint
    with Checkpoints(
        run, keep=settings.keep, monitor=settings.monitor, mode=settings.mode, read_only=True
    ) as checkpoints:
        step = _chosen_step(checkpoints, run, checkpoint)
        state, _ = checkpoints.restore(step, training.state)
    params, model_state = evaluated(state)
    return params, model_state, step


def _chosen_step(checkpoints: Any, run: pathlib.Path, checkpoint: str) -> int:
    """The step that `best`, `last` or a number means in this run."""
    steps = checkpoints.steps
    if not steps:
        raise UserError(f"--run {run}: it has no checkpoint yet. Train it first.")
    if checkpoint == "last" or (checkpoint == "best" and checkpoints.best is None):
        return steps[-1]
    if checkpoint == "best":
        return checkpoints.best
    if not checkpoint.isdigit() or int(checkpoint) not in steps:
        raise UserError(
            f'--checkpoint: found "{checkpoint}"; allowed: best, last or one of the steps {steps}.'
        )
    return int(checkpoint)


def _write(
    path: pathlib.Path,
    config: Config,
    data: "Data",
    network: "Network",
    params: Any,
    model_state: Any,
    provenance: Any,
) -> None:
    """One pass over the part, from images to rows of the predictions table."""
    import jax
    import numpy as np

    from plankton_jax import run_batches
    from plankton_jax.analysis.predictions import PredictionsWriter
    from plankton_jax.metrics import marginal_logits
    from plankton_jax.train_step import mean_over_views, normalise

    ancestors = data.taxonomy.ancestors

    def run_view(params, model_state, images, measurements):
        logits, pooled = network.embed(params, model_state, images, measurements)
        if len(logits) != len(ancestors):
            logits = marginal_logits(logits[-1], ancestors)
        return logits, pooled

    @jax.jit
    def run_network(params, model_state, images, measurements):
        images = normalise(images, network.mean, network.std)
        return mean_over_views(
            lambda view: run_view(params, model_state, view, measurements),
            images,
            provenance.views,
        )

    size = config.data.image_size
    shapes = jax.eval_shape(
        run_network,
        params,
        model_state,
        jax.ShapeDtypeStruct((1, size, size, 1), np.uint8),
        jax.ShapeDtypeStruct((1, len(config.data.measurements)), np.float32),
    )
    with (
        run_batches.eval_batches(
            config,
            data,
            data.rows[provenance.split],
            worker_count=config.data.worker_count,
            notify=functools.partial(print, file=sys.stderr),
        ) as batches,
        PredictionsWriter(path, provenance, embedding_size=shapes[1].shape[-1]) as writer,
    ):
        for batch in batches:
            logits, pooled = jax.device_get(
                run_network(params, model_state, batch["image"], batch["measurements"])
            )
            mask = batch["mask"]
            writer.write(
                data.dataset.ids(batch["index"][mask]),
                batch["leaf"][mask],
                [level[mask] for level in logits],
                pooled[mask],
            )


def report(predictions: "Predictions", run: pathlib.Path, as_json: bool) -> None:
    """Writes the tables and the figures, and prints the metrics."""
    from rich.console import Console

    from plankton_jax.analysis import figures, tables
    from plankton_jax.analysis.report_tables import report_tables

    split, levels = predictions.provenance.split, predictions.taxonomy.level_names
    rows = tables.class_table(predictions)
    table = run / "predictions" / f"{split}_classes.csv"
    confusion = run / "figures" / f"{split}_confusion.png"
    by_class = run / "figures" / f"{split}_accuracy_by_class.png"
    tables.write_class_table(rows, levels, table)
    figures.confusion_figure(
        tables.sums(predictions)["confusion"][-1],
        predictions.taxonomy.leaf_names,
        confusion,
        groups=[row.ancestors for row in rows],
    )
    figures.accuracy_by_class_figure(rows, by_class, split)
    of_levels = report_tables([(run.resolve().name, predictions)]) if len(levels) > 1 else []
    written = [path for made in of_levels for path in made.write(run / "tables" / split)]
    summary, views = tables.summary(predictions), predictions.provenance.views
    if as_json:
        print(json.dumps(summary | ({"views": views} if views > 1 else {})))
        return
    console = Console(width=None if sys.stdout.isatty() else 140)  # a file takes whole names
    tables.print_class_table(rows, levels, console)
    _print_missing(tables.classes_without_images(rows), split)
    tables.print_level_table(summary, console)
    for made in of_levels:
        print(made.markdown())
    if of_levels:
        print(f"nodes of the levels are those of the decoder {predictions.provenance.decoder}")
    if views > 1:
        print(f"probabilities are means over {views} views of each image")
    print(f"licence of the images: {predictions.provenance.licence}")
    for path in (predictions.path, table, confusion, by_class, *written):
        print(f"wrote {path}")


def _print_missing(missing: dict[str, tuple[str, ...]], split: str) -> None:
    """Names the classes whose numbers mean little."""
    for part, what in (("train", "no training image"), ("test", f"no image in {split}")):
        if missing[part]:
            print(f"warning: {len(missing[part])} classes have {what}: {', '.join(missing[part])}")


if __name__ == "__main__":
    run_command(main)
