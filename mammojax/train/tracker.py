"""Numbers of a run for a server beside TensorBoard: Weights & Biases or MLflow (config.tracker).

Sent are the config without its paths, and the numbers of each epoch; no image, no id of a patient, no output of the
console and nothing of the machine. Which server, and as whom, is set where these packages look for it: `wandb login`,
WANDB_MODE, WANDB_PROJECT; MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
from flax.traverse_util import flatten_dict

from mammojax.errors import BadConfig
from mammojax.train.checkpoint import PATH_FIELDS

FILE = "tracker.json"
"""In a run folder: the tracker's name, and its id of the run, by which a resumed run goes on there."""


class _Wandb:
    def __init__(self, name: str, fields: Mapping[str, Any], known: str, workdir: Path) -> None:
        import wandb

        settings = wandb.Settings(console="off", disable_git=True, disable_code=True, x_disable_meta=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mammojax"), name=name, config=dict(fields), id=known or None,
            resume="allow", dir=str(workdir), settings=settings,
        )  # fmt: skip
        self.id = str(self._run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, name: str, fields: Mapping[str, Any], known: str, workdir: Path) -> None:
        import mlflow

        self._mlflow, self._client, self.id = mlflow, mlflow.MlflowClient(), known
        if not known:  # by the client, as mlflow.start_run would also send the path of the program
            title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mammojax")
            there = self._client.get_experiment_by_name(title)
            experiment = there.experiment_id if there else self._client.create_experiment(title)
            self.id = self._client.create_run(experiment, run_name=name).info.run_id
            params = [mlflow.entities.Param(field, str(value)[:500]) for field, value in fields.items()]
            for first in range(0, len(params), 100):  # the most that a server takes at once
                self._client.log_batch(self.id, params=params[first : first + 100])

    def log(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        metrics = [self._mlflow.entities.Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self.id)


SERVERS: dict[str, type[_Wandb] | type[_Mlflow]] = {"wandb": _Wandb, "mlflow": _Mlflow}


class Tracker:
    """The run on the server that config.tracker names; without one nothing is sent.

    A server that fails later does not end a training: a printed line says so, and nothing more is sent.

    Args:
        config: of the run; "tracker" is "wandb", "mlflow", "" or absent.
        workdir: the run folder.

    Raises:
        BadConfig: the run cannot be begun there.
    """

    def __init__(self, config: ml_collections.ConfigDict, workdir: Path) -> None:
        self._name: str = config.get("tracker", "")
        self._server: _Wandb | _Mlflow | None = None
        if not self._name:
            return
        file = workdir / FILE
        saved = json.loads(file.read_text()) if file.is_file() else {}
        known = saved["id"] if saved.get("tracker") == self._name else ""
        flat = flatten_dict(config.to_dict(), sep=".")
        fields = {name: value for name, value in flat.items() if name.rpartition(".")[2] not in PATH_FIELDS}
        title = "/".join(workdir.absolute().parts[-2:])
        try:
            server = SERVERS[self._name](title, fields, known, workdir)
        except Exception as error:  # of the package, of the network: each has classes of its own
            raise BadConfig(
                f'config.tracker is "{self._name}", which cannot be reached ({_line(error)}); set it up, or leave the '
                "field out."
            ) from None
        self._server = server
        file.write_text(json.dumps({"tracker": self._name, "id": server.id}) + "\n")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send the numbers of a step."""
        self._try(lambda server: server.log(values, step))

    def close(self) -> None:
        """End the connection."""
        self._try(lambda server: server.close())

    def _try(self, action: Any) -> None:
        if self._server is None:
            return
        try:
            action(self._server)
        except Exception as error:
            self._server = None
            print(
                f"{self._name} cannot be reached any more ({_line(error)}): training goes on, nothing more is sent",
                flush=True,
            )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
