"""What `import mammojax` offers: every example of a docstring runs, and every name has one."""

import doctest
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import mammojax
from mammojax.train.checkpoint import restore_best

MODULES = ("mammojax", "mammojax.configs", "mammojax.networks")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_run(name: str, finished: Path, tmp_path: Path) -> None:
    dicom = max((finished.parent / "data").rglob("*.dcm"), key=lambda path: path.stat().st_size)  # no crop, no mask
    config, _, _ = restore_best(finished)
    given = {"run": finished, "dicom": dicom, "data_dir": tmp_path, "config": config, "mammojax": mammojax}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    tests = doctest.DocTestFinder().find(importlib.import_module(name), extraglobs=given)
    assert any(test.examples for test in tests)
    for test in tests:
        runner.run(test)
    assert not runner.summarize(verbose=False).failed


def test_every_public_name_is_there_with_a_docstring_and_an_example() -> None:
    for name in mammojax.__all__:
        assert ">>>" in (getattr(mammojax, name).__doc__ or ""), name
    assert set(mammojax.networks.__all__) <= set(vars(mammojax.networks))


def test_the_rooms_behind_train_and_evaluate_are_still_found() -> None:
    from mammojax.evaluate import table
    from mammojax.train import loop

    assert all(callable(function) for function in (mammojax.train, mammojax.evaluate, loop.train, table.write))


def test_jax_is_not_imported_before_it_is_needed() -> None:
    code = "import mammojax, mammojax.cli, sys; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[1])


def test_the_api_reference_is_that_of_the_docstrings() -> None:
    spec = importlib.util.spec_from_file_location("make_api", Path(__file__).resolve().parents[1] / "docs/make_api.py")
    make_api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_api)
    assert make_api.FILE.read_text() == make_api.render(), "run: python docs/make_api.py"
