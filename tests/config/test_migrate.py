"""Settings that did nothing, in files of earlier versions."""

import pytest

from unmask.config.commands import PretrainConfig
from unmask.config.migrate import config_record, read_config
from unmask.config.tokenizer import TokenizerConfig


def test_a_tokenizers_config_with_activation_checkpointing_is_read():
    record = config_record(TokenizerConfig(recipe="mine"), "tokenizer")
    record["run"]["activation_checkpointing"] = True
    assert read_config(record, TokenizerConfig) == TokenizerConfig(recipe="mine")
    other = config_record(PretrainConfig(), "pretrain")
    other["run"]["activation_checkpointing"] = True
    assert read_config(other, PretrainConfig).run.activation_checkpointing
    record["run"]["unheard_of"] = 1
    with pytest.raises(ValueError, match="unheard_of"):
        read_config(record, TokenizerConfig)
