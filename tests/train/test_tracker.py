"""config.tracker: what reaches the server, that a resumed run goes on there, and that its failure ends no training."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mammojax import config_values
from mammojax.configs import quickstart
from mammojax.errors import BadConfig
from mammojax.train.tracker import FILE, Tracker
from tests.train import test_loop


def _config(tracker: str) -> Any:
    config = quickstart.get_config().patch
    config.tracker, config.init_from, config.data.source = tracker, "/home/doe/run", "/home/doe/films.csv"
    return config


class _Wandb:
    """What we use of the package, kept in lists."""

    def __init__(self, fails: bool = False) -> None:
        self.began: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished, self.fails = 0, fails

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **given: Any) -> "_Wandb":
        self.began.append(given)
        self.id = given["id"] or "new"
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        if self.fails:
            raise ConnectionError("no route\nto host")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


def test_what_tensorboard_gets_reaches_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = _Wandb()
    monkeypatch.setitem(sys.modules, "wandb", server)
    monkeypatch.setattr(quickstart, "get_config", lambda make=quickstart.get_config: _tracked(make()))
    test_loop._train(tmp_path, [{"loss": 1.0, "auc": auc} for auc in (0.5, 0.6, 0.4)])
    assert [values["val/auc"] for _, values in server.logged if "val/auc" in values] == [0.5, 0.6, 0.4]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in server.logged] == [row["step"] for row in rows]
    assert [v["train/loss"] for _, v in server.logged[::2]] == [row["loss"] for row in rows if row["kind"] == "train"]
    assert server.finished == 1


def _tracked(config: Any) -> Any:
    config.patch.tracker = "wandb"
    return config


def test_a_resumed_run_goes_on_there_and_no_path_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = _Wandb()
    monkeypatch.setitem(sys.modules, "wandb", server)
    Tracker(_config("wandb"), tmp_path).close()
    Tracker(_config("wandb"), tmp_path)
    assert [given["id"] for given in server.began] == [None, "new"]
    assert server.began[0]["config"]["stages.stage1.epochs"] == 4
    assert "doe" not in str(server.began[0]["config"])
    assert (server.began[0]["settings"]["console"], server.began[0]["resume"]) == ("off", "allow")


def test_a_server_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", _Wandb(fails=True))
    tracker = Tracker(_config("wandb"), tmp_path)
    for step in (1, 2):
        tracker.log({"val/loss": 1.0}, step)
    tracker.close()
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "wandb cannot be reached any more (no route): training goes on, nothing more is sent"


def test_a_server_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise ConnectionError("not logged in")

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=refused))
    with pytest.raises(BadConfig, match=r'config\.tracker is "mlflow", which cannot be reached \(not logged in\)'):
        Tracker(_config("mlflow"), tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadConfig, match=r"pip install 'mammojax\[mlflow\]'"):
        config_values.refuse(_config("mlflow"))
    with pytest.raises(BadConfig, match=r'config\.tracker is "comet"; write nothing, wandb or mlflow'):
        config_values.refuse(_config("comet"))


@pytest.mark.filterwarnings("ignore")
def test_the_package_mlflow_itself_keeps_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'mammojax[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr(mlflow.MlflowClient, "__init__", _in(tmp_path / "store", mlflow.MlflowClient.__init__))
    for step in (1, 2):
        tracker = Tracker(_config("mlflow"), tmp_path)
        tracker.log({"val/auc": 0.1 * step}, step)
        tracker.close()
    run = json.loads((tmp_path / FILE).read_text())["id"]
    client = mlflow.MlflowClient()
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run, "val/auc")] == [(1, 0.1), (2, 0.2)]
    saved = client.get_run(run)
    assert saved.data.params["stages.stage1.epochs"] == "4"
    assert saved.info.status == "FINISHED"
    assert "doe" not in str(saved.data)


def _in(folder: Path, init: Any) -> Any:
    return lambda self: init(self, tracking_uri=folder.as_uri())


@pytest.mark.filterwarnings("ignore")
def test_the_package_wandb_itself_takes_our_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'mammojax[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = Tracker(_config("wandb"), tmp_path)
    tracker.log({"val/auc": 0.5}, 1)
    tracker.close()
    (written,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert json.loads((tmp_path / FILE).read_text())["id"] in written.name
    assert b"doe" not in written.read_bytes()
