"""Configs are found where the package is; a wrong name is answered with the nearest one."""

import subprocess
import sys

import pytest

from mammojax import configs
from mammojax.errors import BadConfig


def test_each_config_has_a_line_and_what_they_share_is_none_of_them() -> None:
    assert {"quickstart", "whole_resnet", "exam", "film"} <= set(configs.names())
    assert "base" not in configs.names()
    assert configs.line("film").startswith("Patch → whole image on any manifest of film mammograms")


@pytest.mark.parametrize(
    ("name", "argument", "words"),
    [
        ("quickstrat", "", "did you mean quickstart?"),
        ("zzz", "", "there are birads, exam,"),
        ("patch_resnet", "s2", "write s10, s1 or s1g"),
        ("quickstart", "s10", "takes no argument"),
    ],
)
def test_a_config_that_is_not_there_is_refused(name: str, argument: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        configs.get(name, argument)


def test_a_reader_that_has_enough_ends_the_list_quietly() -> None:
    command = f"{sys.executable} -m mammojax.cli configs | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
