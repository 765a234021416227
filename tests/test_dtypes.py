"""Names of dtypes, there and back."""

import pytest
import torch

from gtsvj_reward.dtypes import DTYPES, dtype_name, dtype_of


def test_names_go_there_and_back():
    assert [dtype_of(name) for name in DTYPES] == [torch.float32, torch.bfloat16, torch.float16]
    assert tuple(dtype_name(dtype_of(name)) for name in DTYPES) == DTYPES


@pytest.mark.parametrize("name", ["fp16", "nn", "torch.float32"])
def test_other_names_are_an_error_that_says_what_is_expected(name):
    with pytest.raises(ValueError, match=f"{name}.*expected one of float32, bfloat16, float16"):
        dtype_of(name)
