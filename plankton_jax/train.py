"""Trains a classifier, or goes on with a run that was stopped.

    python -m plankton_jax.train --config configs/quickstart.py --workdir runs/first
    python -m plankton_jax.train --config configs/image_folder.py --config.data.source=images \
        --config.optim.learning_rate=1e-3 --workdir runs/mine

The same command twice is safe: a `--workdir` that holds a run goes on from its last checkpoint.
SIGTERM and SIGINT (Ctrl-C) save first and end with status 128 + the signal's number.
"""

import pathlib
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from plankton_jax.command import (
    command_parser,
    config_hash,
    display_name,
    file_and_argument,
    quiet_libraries,
    read_config,
    run_command,
)
from plankton_jax.config import Config, walk
from plankton_jax.errors import UserError

if TYPE_CHECKING:
    from plankton_jax.checkpoints import Checkpoints
    from plankton_jax.data.cached_features import FeatureFiles
    from plankton_jax.experiment import Training
    from plankton_jax.run_data import Data
    from plankton_jax.tracking import Console, Tracker


def main(arguments: list[str]) -> int:
    """Reads the settings, checks them before anything heavy is imported, and trains."""
    parser = command_parser("plankton_jax.train", __doc__ or "")
    parser.add_argument("--config", required=True, help="FILE.py[:ARG], or a run's config.json")
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="the run directory")
    options, overrides = parser.parse_known_args(arguments)
    config = read_config(options.config, overrides)
    return train(config, options.workdir, file_and_argument(options.config)[0])


class _Stop:
    """Remembers a SIGTERM or SIGINT until the loop has saved. A second one ends at once."""

    def __init__(self) -> None:
        self.signal = 0

    def __enter__(self) -> "_Stop":
        self._before = {
            number: signal.signal(number, self._remember)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: Any) -> None:
        self.signal = number
        signal.signal(number, self._before[signal.Signals(number)])

    @property
    def status(self) -> int:
        """The exit status a shell gives a process that the signal ended."""
        return 128 + self.signal if self.signal else 0


def train(config: Config, workdir: pathlib.Path, config_file: pathlib.Path) -> int:
    """Trains in `workdir` until the end or a signal. Returns the exit status."""
    # ---------------------------------------------------------------- imports and compiler cache
    quiet_libraries()
    import jax

    if config.logging.compilation_cache:
        folder = pathlib.Path(config.logging.compilation_cache).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

    from plankton_jax import (
        experiment,
        feature_cache,
        host_memory,
        run_data,
        run_directory,
        trackers,
    )
    from plankton_jax.checkpoints import Checkpoints
    from plankton_jax.tracking import Console, Tracker

    if jax.default_backend() == "cpu":
        host_memory.keep_freed_memory()

    trackers.require_installed(config.logging.trackers)
    settings = config.checkpoint
    with run_directory.locked(workdir):
        # ---------------------------------------- everything that can be refused, then what is new
        # A save that was cut short leaves a folder whose name begins with its step.
        fresh = not any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))
        if not fresh:
            run_directory.refuse_other_settings(workdir, config, config_file)
            _refuse_other_checkpoints(config, workdir)
        noted = None
        if fresh:
            experiment.refuse_impossible_backbone(config)
        else:
            noted = run_directory.data_without_its_source(workdir, config, notify=_note)
        data = run_data.open_data(config, notify=_note, noted=noted)
        if not fresh:
            run_directory.refuse_other_data(workdir, data.description())
        training = experiment.make_training(
            config,
            data,
            fresh=fresh,
            provenance=None if fresh else run_directory.read_provenance(workdir),
            notify=_note,
        )
        if fresh:
            experiment.try_step(config, training)
        described = data.description() | {"directory": str(data.dataset.directory)}
        run_directory.write(workdir, config, config_file, described)
        run_data.write_class_counts(data, workdir / "class_counts.csv")
        if fresh:
            run_directory.write_provenance(workdir, training.network.provenance)
        with Checkpoints(
            workdir, keep=settings.keep, monitor=settings.monitor, mode=settings.mode
        ) as checkpoints:
            # ------------------------------------------------------------ initialise or restore
            # On its device as a restored one is, so that both run one compiled program.
            state = jax.device_put(training.state, jax.local_devices()[0])
            window, start = None, 0
            if checkpoints.steps:
                state, record, problems = checkpoints.restore_newest(training.state)
                window, start = record["window"], record["step"]
                for problem in problems:
                    print(f"warning: {problem} Going on from step {start}.", file=sys.stderr)
            with (
                _Stop() as stop,
                Tracker(
                    workdir,
                    resume_step=start,
                    tensorboard=config.logging.tensorboard,
                    services=trackers.Trackers(
                        config.logging.trackers,
                        workdir,
                        {name: display_name(value) for name, _, value in walk(config)},
                        _note,
                    ),
                ) as told,
                Console(training.total_steps, config.train.batch_size, start) as console,
            ):
                _greet(console, config, data, training, start)
                features, stores = None, bool(config.model.cache_features)
                if stores and start < training.total_steps:
                    features = feature_cache.prepare(
                        config,
                        data,
                        training.network,
                        state,
                        stopped=lambda: bool(stop.signal),
                        notify=console.say,
                    )
                if features is not None or not stores:  # else stopped while they were computed
                    _loop(
                        config, data, training, state, window, checkpoints, told, console, stop,
                        features,
                    )  # fmt: skip
                checkpoints.wait()
                if not checkpoints.steps or checkpoints.steps[-1] < training.total_steps:
                    console.say(
                        f"stopped by signal {stop.signal}; the same command goes on from here"
                    )
                    return stop.status
                console.say(f"done: {workdir} (best step {checkpoints.best})")
    return 0


def _identity(config: Config) -> dict[str, Any]:
    """What a checkpoint says of the run it belongs to."""
    import jax

    return {
        "config_hash": config_hash(config, results_only=True),
        "process_count": jax.process_count(),
        "worker_count": config.data.worker_count,
    }


def _refuse_other_checkpoints(config: Config, workdir: pathlib.Path) -> None:
    """Refuses checkpoints that other settings made, as when one was copied into the run."""
    from plankton_jax.checkpoints import read_records

    expected = config_hash(config, results_only=True)
    for step, record in read_records(workdir / "checkpoints").items():
        if record.get("config_hash") != expected:
            raise UserError(
                f"--workdir {workdir}: its checkpoint of step {step} was made with other settings "
                "than config.json holds. Put the run's own checkpoints back, or choose another "
                "workdir."
            )


def _note(text: str) -> None:
    """Tells what goes on before the training."""
    print(text, file=sys.stderr, flush=True)


def _greet(
    console: "Console", config: Config, data: "Data", training: "Training", start: int
) -> None:
    """Says what is about to be trained, and what is amiss with the classes."""
    import jax

    from plankton_jax import run_data

    count = sum(leaf.size for leaf in jax.tree.leaves(training.state.params))
    parts = ", ".join(f"{part} {len(rows)}" for part, rows in data.rows.items() if len(rows))
    console.say(
        f"{data.dataset.metadata['name']}: {len(data.dataset)} images, "
        f"{data.taxonomy.num_leaves} classes ({parts}); licence: "
        f"{data.dataset.metadata['licence']}"
    )
    console.say(
        f"{display_name(config.model.name)}: {count / 1e6:.2f} M parameters; "
        f"{training.total_steps} steps of {config.train.batch_size} images on one "
        f"{jax.default_backend()} device" + (f"; going on from step {start}" if start else "")
    )
    for warning in run_data.class_warnings(data, config.split):
        console.say(f"warning: {warning}")
    if start < training.total_steps:
        console.say("the first step takes longer: its program is compiled, or read from the cache")


def _loop(
    config: Config,
    data: "Data",
    training: "Training",
    state: Any,
    saved_window: dict[str, Any] | None,
    checkpoints: "Checkpoints",
    told: "Tracker",
    console: "Console",
    stop: _Stop,
    features: "FeatureFiles | None",
) -> None:
    """The training loop. Per step: step, evaluate, save, log, take the next batch; keep the order.

    A save holds what was evaluated, and nothing is drawn from the data between the two, so a run
    that goes on from it repeats every later number.
    """
    import jax

    from plankton_jax import optim, run_batches

    run_step = jax.jit(accumulating(training.train_step), donate_argnums=(0, 1))
    run_eval = jax.jit(_counting(training.eval_step), donate_argnums=(2,))
    window = device_window(saved_window)
    step = int(state.step)
    if step >= training.total_steps:
        return
    # ---------------------------------------------------------------------------------- the data
    with run_batches.train_batches(
        config,
        data,
        start=step,
        stop=training.total_steps,
        features=features,
        notify=console.say,
    ) as batches:
        batch = run_batches.to_device(next(batches), features)
        while step < training.total_steps:
            # -------------------------------------------------------------------------- one step
            state, window = run_step(state, window, batch)
            console.begin(step)
            step += 1
            last = step == training.total_steps
            evaluates = last or step % training.evaluate_every == 0
            saves = evaluates or bool(stop.signal)
            every = config.checkpoint.every_steps
            saves = saves or bool(every and step % every == 0)
            logs = last or step % config.logging.every_steps == 0
            epoch = step / training.steps_per_epoch
            # ------------------------------------------------------- the numbers since last time
            if saves or logs:
                sums = {name: value.item() for name, value in window.items()}
                _require_finite(sums, step, checkpoints)
            if logs:
                values = _means(sums)
                values["learning_rate"] = float(training.schedule(step - 1) * state.plateau.scale)
                if rate := console.images_per_second(step):  # none for the step that was compiled
                    values["images_per_second"] = rate
                told.write("train", step, epoch, values)
                console.show(step, epoch, values)
                window, sums = device_window(None), _ZERO_WINDOW
            # --------------------------------------------------------------------- evaluate, save
            metrics = None
            if evaluates and len(data.rows["validation"]):
                with console.not_counted():
                    metrics = evaluate(config, data, run_eval, state, console.say, features)
                told.write("validation", step, epoch, metrics)
                console.say(_validation_line(step, metrics, data.taxonomy.level_names))
                if config.optim.schedule == "plateau":
                    monitored = metrics[config.optim.plateau_monitor]
                    plateau = optim.plateau_update(config.optim, state.plateau, monitored)
                    state = _with_plateau(state, plateau)
            if saves:
                with console.not_counted():
                    checkpoints.save(
                        step, state, {"metrics": metrics, "window": sums, **_identity(config)}
                    )
            # -------------------------------------------------------------------- the next batch
            if last or (stop.signal and saves):
                return
            batch = run_batches.to_device(next(batches), features)


_ZERO_WINDOW = {"loss": 0.0, "correct": 0, "count": 0, "gradient_norm": 0.0, "steps": 0}


def device_window(window: dict[str, Any] | None) -> dict[str, Any]:
    """Sums since the last log line, on the device; zero when there are none."""
    import jax.numpy as jnp

    return {
        name: jnp.asarray((window or _ZERO_WINDOW)[name], jnp.asarray(zero).dtype)
        for name, zero in _ZERO_WINDOW.items()
    }


def accumulating(train_step: Any) -> Any:
    """The training step with its sums added to a window, so that no step waits for the host."""
    import jax

    def step(state, window, batch):
        state, sums = train_step(state, batch)
        return state, jax.tree.map(lambda total, new: total + new, window, sums | {"steps": 1})

    return step


def _counting(eval_step: Any) -> Any:
    """The evaluation step with its sums added to those of the batches before."""
    import jax

    def step(params, model_state, totals, batch):
        _, sums = eval_step(params, model_state, batch)
        return jax.tree.map(lambda total, new: total + new, totals, sums)

    return step


def evaluate(
    config: Config,
    data: "Data",
    run_eval: Any,
    state: Any,
    notify: Callable[[str], None],
    features: "FeatureFiles | None" = None,
) -> dict[str, float]:
    """Metrics of every level over the validation part."""
    import jax

    from plankton_jax import experiment, run_batches
    from plankton_jax.metrics import level_metrics, zero_sums
    from plankton_jax.train_step import evaluated

    params, model_state = evaluated(state)
    totals = zero_sums(data.taxonomy.ancestors)
    with run_batches.eval_batches(
        config, data, data.rows["validation"], features=features, notify=notify
    ) as batches:
        for batch in batches:
            batch = run_batches.to_device(batch, features, masked=True)
            totals = run_eval(params, model_state, totals, batch)
    levels = level_metrics(jax.device_get(totals), data.taxonomy.level_names)
    return experiment.flat_metrics(levels)


def _with_plateau(state: Any, plateau: Any) -> Any:
    import dataclasses

    return dataclasses.replace(state, plateau=plateau)


def _means(sums: dict[str, Any]) -> dict[str, float]:
    """Training metrics of a window: mean loss and accuracy an image, mean gradient norm a step."""
    count, steps = max(sums["count"], 1), max(sums["steps"], 1)
    return {
        "loss": sums["loss"] / count,
        "accuracy": sums["correct"] / count,
        "gradient_norm": sums["gradient_norm"] / steps,
    }


def _validation_line(step: int, metrics: dict[str, float], levels: tuple[str, ...]) -> str:
    """One line: accuracy and macro F1 at every level, log-loss of the leaves."""
    parts = [
        f"{level} accuracy {metrics[f'{level}/micro_accuracy']:.4f} "
        f"macro F1 {metrics[f'{level}/macro_f1']:.4f}"
        for level in levels
    ]
    return f"validation at step {step}: {'; '.join(parts)}; log-loss {metrics['log_loss']:.4f}"


def _require_finite(sums: dict[str, Any], step: int, checkpoints: "Checkpoints") -> None:
    """Stops before anything that is not finite is saved.

    Raises:
      UserError: the loss or the gradient is not finite.
    """
    import math

    from plankton_jax.checkpoints import not_finite

    bad = [name for name in ("loss", "gradient_norm") if not math.isfinite(sums[name])]
    if bad:
        raise not_finite(step, [name.replace("_", " ") for name in bad], checkpoints)


if __name__ == "__main__":
    run_command(main)
