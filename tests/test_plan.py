"""A training step is made to fit into a memory, by the compiler's own count, before anything runs."""

import pytest
from ml_collections import ConfigDict

from mammojax import plan, run
from mammojax.configs import quickstart
from mammojax.errors import BadConfig


def _config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.size = (256, 192)
    config.model.update(width=4, blocks=(1, 1, 1, 1), head="8-8-16x1")
    config.batch, config.init_from = 4, "a finished run"
    return config


def _bytes(config: ConfigDict) -> int:
    return plan.needed_bytes(plan.program(config, {"mean": 0.0}).compile())


def test_a_step_that_fits_is_left_alone_and_one_that_does_not_is_rematerialised_then_goes_in_parts() -> None:
    config = _config()
    needed = _bytes(config)
    plan.fit(config, needed)
    assert (config.remat, config.accumulate) == (False, 1)
    plan.fit(config, needed * 9 // 10)
    assert (config.remat, config.accumulate) == (True, 1)
    needed = _bytes(config)
    plan.fit(config, needed * 9 // 10)
    assert config.accumulate > 1
    assert _bytes(config) <= needed * 9 // 10
    assert config.batch % config.accumulate == 0


def test_rematerialisation_saves_a_third_of_a_deep_network_by_the_compiler() -> None:
    """A compiler may take the second computation of a block for the first one: nothing is saved then."""
    config = _config()
    config.model.blocks = (2, 2, 2, 2)
    needed = _bytes(config)
    config.remat = True
    assert _bytes(config) < 0.7 * needed


def test_a_step_that_cannot_fit_is_refused_with_the_numbers() -> None:
    config = _config()
    with pytest.raises(BadConfig, match=r"needs 0\.\d+ GB at least, .*accumulate=4, and config.memory is 1e-05 GB"):
        plan.fit(config, 10_000)


def test_a_run_is_checked_for_its_memory_before_it_is_prepared() -> None:
    config = quickstart.get_config()
    config.memory = "much"
    with pytest.raises(BadConfig, match=r'config\.memory: "much" is no size of a memory; write such as 24GB'):
        run.check(config)
    config.memory, config.accumulate = "", 3
    with pytest.raises(BadConfig, match=r"config\.accumulate is 3, which does not divide the batch of 8"):
        run.check(config)
