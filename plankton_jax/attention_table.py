"""Who listens to whom: attention between the branches of a run's head, as means over the images of
each true first-level node. Runs the network once over a part and writes one csv file.
"""

import csv
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from plankton_jax import run_batches
from plankton_jax.command import display_name
from plankton_jax.config import Config
from plankton_jax.errors import UserError
from plankton_jax.experiment import Network
from plankton_jax.files import replacing
from plankton_jax.names import ATTENTION_HEADS, UNLABELLED
from plankton_jax.run_data import Data
from plankton_jax.taxonomy import Taxonomy
from plankton_jax.train_step import normalise


def refuse_without(head: Any, split: str) -> None:
    """Refuses what has no attention, or no true first level to take means over.

    Raises:
      UserError: another head, or images without a label.
    """
    if head not in ATTENTION_HEADS:
        raise UserError(
            f'--attention: the run has config.model.head="{display_name(head)}", which has none; '
            f"allowed: runs of {' or '.join(ATTENTION_HEADS)}."
        )
    if split == UNLABELLED:
        raise UserError(
            f"--attention: found --split {split}, whose images have no true first level; allowed: "
            "another part."
        )


def branch_names(head: str, taxonomy: Taxonomy) -> tuple[str, ...]:
    """What each branch predicts, in the order of the head's weights."""
    if head == "bacnn":
        return taxonomy.level_names
    sides, levels = taxonomy.node_names[0], taxonomy.level_names[1:]
    return tuple(f"{side}, {level}" for side in sides for level in levels)


def write_attention(
    path: pathlib.Path,
    config: Config,
    data: Data,
    network: Network,
    params: Any,
    model_state: Any,
    *,
    split: str,
    notify: Any,
) -> None:
    """Writes the mean weights of the images as they are: for each true first-level node, and each
    branch that listens, a row with the weight of every branch that is listened to."""

    @jax.jit
    def attend(params, model_state, images, measurements):
        images = normalise(images, network.mean, network.std)
        return network.attend(params, model_state, images, measurements)

    sides = data.taxonomy.node_names[0]
    names = branch_names(str(config.model.head), data.taxonomy)
    totals = np.zeros((len(sides), len(names), len(names)))
    counts = np.zeros(len(sides), np.int64)
    load = functools.partial(run_batches.eval_batches, config, data, data.rows[split])
    with load(worker_count=config.data.worker_count, notify=notify) as batches:
        for batch in batches:
            weights = attend(params, model_state, batch["image"], batch["measurements"])
            mask = batch["mask"]
            side = data.taxonomy.ancestors[0][batch["leaf"][mask]]
            np.add.at(totals, side, np.asarray(weights, np.float64)[mask])
            counts += np.bincount(side, minlength=len(sides))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((data.taxonomy.level_names[0], "images", "branch", *names))
        for node, total, count in zip(sides, totals, counts.tolist(), strict=True):
            for name, row in zip(names, total, strict=True):
                cells = [f"{weight / count:.6f}" if count else "" for weight in row]
                writer.writerow((node, count, name, *cells))
