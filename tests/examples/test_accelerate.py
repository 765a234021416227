"""Settings of accelerate for 1, 8 and 64 GPUs."""

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests.examples.scripts import EXAMPLES


@pytest.mark.parametrize(("name", "machines"), [("1_gpu", 1), ("8_gpus", 1), ("64_gpus", 8)])
def test_settings_are_those_of_accelerate(name, machines):
    config = load_config_from_file(str(EXAMPLES / "accelerate" / f"{name}.yaml"))
    assert config.num_processes == int(name.split("_")[0])
    assert config.num_machines == machines
    assert config.distributed_type.value == ("MULTI_GPU" if config.num_processes > 1 else "NO")
    assert config.mixed_precision == "no"
