"""The words of the toy world, as tokens."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from gtsvj_reward.toy.world import COLOURS, COUNTS, MOTIONS, SHAPES

TEXT_LENGTH = 8
"""Tokens of a prompt: `max_sequence_length` of the pipeline, whose default is 226."""

SPECIAL = ("<pad>", "</s>", "<unk>")
WORDS = (*COUNTS.values(), *COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES), *MOTIONS)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word; other words become `<unk>`, which no model has been trained on."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )
