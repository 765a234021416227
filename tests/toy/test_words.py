from gtsvj_reward.toy.words import SPECIAL, TEXT_LENGTH, WORDS, make_tokenizer
from gtsvj_reward.toy.world import captions


def test_every_caption_is_told_apart_and_has_no_unknown_word():
    tokenizer = make_tokenizer()
    tokens = tokenizer(captions(), padding="max_length").input_ids
    assert len(tokenizer) == len(SPECIAL) + len(WORDS)
    assert {len(row) for row in tokens} == {TEXT_LENGTH}
    assert len({tuple(row) for row in tokens}) == len(captions())
    assert not any(tokenizer.unk_token_id in row for row in tokens)
    assert tokenizer.unk_token_id in tokenizer("two pink squares bouncing").input_ids


def test_a_text_ends_with_the_end_token_and_padding():
    tokenizer = make_tokenizer()
    ids = tokenizer("one red square falling", padding="max_length").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "one", "red", "square", "falling", "</s>", "<pad>", "<pad>", "<pad>"
    ]  # fmt: skip
    assert tokenizer("", padding="max_length").input_ids[0] == tokenizer.eos_token_id
