"""Metrics to the services of `config.logging.trackers`: Weights & Biases, MLflow.

Each is a library of the extra `tracking`, imported when it is named, and finds its server, project
and mode by its own environment variables (`WANDB_PROJECT`, `WANDB_MODE`, `MLFLOW_TRACKING_URI`,
`MLFLOW_EXPERIMENT_NAME`). Which of their runs a run directory belongs to is noted in its
`trackers.json`, so a run that is continued continues there too.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from plankton_jax.errors import raise_all
from plankton_jax.files import read_json, replacing

PROJECT = "plankton_jax"
IDS_FILE = "trackers.json"


class Service(Protocol):
    """A run in a service.

    Attributes:
      id: by which the service finds it again.
    """

    id: str

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to the curve of every value."""
        ...

    def close(self) -> None:
        """Sends what is left and lets go."""
        ...


class Wandb:
    """A run of Weights & Biases. Steps that are made again after a kill are logged again."""

    def __init__(self, name: str, run: pathlib.Path, id: str | None, settings: Mapping[str, Any]):
        import wandb  # pyright: ignore[reportMissingImports]

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            id=id,
            resume="allow",
            dir=run,
            config=dict(settings),
        )
        self._run.define_metric("*", step_metric="step")
        self.id = self._run.id

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to the curve of every value."""
        self._run.log({"step": step, **values})

    def close(self) -> None:
        """Waits until all is sent, or written where it is offline."""
        self._run.finish()


class Mlflow:
    """A run of MLflow."""

    _PARAMS_AT_ONCE = 100  # MLflow's limit

    def __init__(self, name: str, run: pathlib.Path, id: str | None, settings: Mapping[str, Any]):
        del run
        import mlflow  # pyright: ignore[reportMissingImports]

        self._mlflow = mlflow
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        self.id = mlflow.start_run(run_id=id, run_name=name).info.run_id
        params = [(key, str(value)) for key, value in settings.items()] if id is None else []
        for start in range(0, len(params), self._PARAMS_AT_ONCE):
            mlflow.log_params(dict(params[start : start + self._PARAMS_AT_ONCE]))

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to the curve of every value."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """Marks the run as ended; it can be started again."""
        self._mlflow.end_run()


_SERVICES: dict[str, Callable[..., Service]] = {"mlflow": Mlflow, "wandb": Wandb}


def require_installed(names: Sequence[str]) -> None:
    """Checks that the services can be imported, without importing them.

    Raises:
      UserError: one cannot.
    """
    raise_all(
        [
            f'config.logging.trackers: found "{name}", which is not installed; install it with '
            "pip install 'plankton_jax[tracking]', or leave it out."
            for name in names
            if importlib.util.find_spec(name) is None
        ]
    )


class Trackers:
    """The named services. One that fails is told of once and left out: training goes on."""

    def __init__(
        self,
        names: Sequence[str],
        run: pathlib.Path,
        settings: Mapping[str, Any],
        notify: Callable[[str], None],
    ):
        self._notify = notify
        self._open: dict[str, Service] = {}
        path = run / IDS_FILE
        ids = read_json(path, "Remove it.") if names and path.exists() else {}
        for name in names:
            with self._failing(name):
                self._open[name] = _SERVICES[name](run.resolve().name, run, ids.get(name), settings)
        ids |= {name: service.id for name, service in self._open.items()}
        if self._open:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(ids))

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Adds one point to the curve of every value, in every service."""
        for name, service in [*self._open.items()]:
            with self._failing(name):
                service.write(values, step)

    def close(self) -> None:
        """Sends what is left."""
        for name, service in [*self._open.items()]:
            with self._failing(name):
                service.close()
        self._open = {}

    @contextlib.contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """Leaves a service out, and says so, for whatever its library or the network may raise."""
        try:
            yield
        except Exception as error:
            self._open.pop(name, None)
            self._notify(
                f"warning: config.logging.trackers: {name} failed and is left out from here on "
                f"({type(error).__name__}: {error}); metrics.jsonl has everything"
            )
