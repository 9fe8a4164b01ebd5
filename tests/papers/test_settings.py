"""How a run's config differs from its row's."""

from mammojax.papers import settings
from tests.papers.test_shen2019 import row_config


def test_older_configs_lack_fields_but_not_stages() -> None:
    config = row_config("patch_resnet:s10")
    del config["extend"], config["augment"]["translation"], config["stages"]["stage1"]["slow"]
    assert settings.differences(config, "patch_resnet:s10") == []
    config["stages"]["stage4"] = config["stages"].pop("stage3")
    assert settings.differences(config, "patch_resnet:s10") == ["without stage3", "with stage4"]
