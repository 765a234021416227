"""TRL reward functions: by the rules of the trainer, and in a real one."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXPipeline
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.integrations.trl import (
    LatentsRewardFunc,
    PromptRewardFunc,
    latents_reward_func,
    prompt_reward_func,
)
from gtsvj_reward.integrations.trl.texts import completion_text, noise_seed
from gtsvj_reward.latents import LatentFileError, LatentSpaceError
from gtsvj_reward.reward import GeometryError, NonFiniteError
from gtsvj_reward.reward.combine import RewardEnsemble, WeightedReward
from tests.integrations.tiny import example_of
from tests.tiny import clips, tiny_aspect_judge, tiny_judge, tiny_space, tiny_transformer
from tests.training.clips import write_clips

WORDS = ["<pad>", "<eos>", "<unk>", "a", "the", "dog", "cat", "runs", "on", "beach", "red", "blue"]
SAMPLING = {
    "num_frames": 9,
    "height": 64,
    "width": 96,
    "num_inference_steps": 2,
    "guidance_scale": 3.0,
    "fps": 8.0,
}
STEP = SimpleNamespace(global_step=3)


def tiny_tokenizer():
    """One token per word."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )


class RecordingPipeline(CogVideoXPipeline):
    """Knows which prompts it was asked for, call by call."""

    def __call__(self, prompt, **arguments):
        self.asked.append(prompt)
        return super().__call__(prompt, **arguments)


def tiny_pipeline(vae, kind="2b"):
    transformer = tiny_transformer(kind, seed=5)
    transformer.proj_out.weight.data.mul_(0.3)  # keeps samples on the scale of latents
    torch.manual_seed(0)
    text = T5Config(vocab_size=len(WORDS), d_model=8, d_ff=16, d_kv=4, num_layers=1, num_heads=2)
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    pipe = RecordingPipeline(
        tokenizer=tiny_tokenizer(),
        text_encoder=T5EncoderModel(text).eval(),
        vae=vae,
        transformer=transformer,
        scheduler=scheduler,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.asked = []
    return pipe


@pytest.fixture
def pipe(tiny_vae):
    return tiny_pipeline(tiny_vae)


@pytest.fixture
def reward():
    return GTSVJReward(tiny_judge())


@pytest.fixture
def judge_of_pipe(tiny_vae):
    return GTSVJReward(tiny_judge(latent_space=LatentSpace.from_vae(tiny_vae)))


class Probe:
    """A reward that scores by the mean and remembers how it was called."""

    def __init__(self):
        self.calls = []

    def __call__(self, latents, *, space=None, fps=None, num_frames=None, text=None,
                 normalize=True):  # fmt: skip
        self.calls.append((len(latents), space, fps, num_frames, normalize))
        self.grad = torch.is_grad_enabled()
        return torch.stack([clip.mean() for clip in latents])


def as_trl(function, rows, **columns):
    """Call a reward function the way `GRPOTrainer._calculate_rewards` does, with its checks."""
    assert not isinstance(function, nn.Module)
    logged, extra = {}, {}
    found = function(
        prompts=["a"] * rows,
        completions=["b"] * rows,
        completion_ids=[[1]] * rows,
        trainer_state=STEP,
        log_extra=lambda name, values: extra.update({name: values}),
        log_metric=lambda name, value: logged.update({name: value}),
        **columns,
    )
    assert len(found) == rows
    numbers = [torch.nan if score is None else score for score in found]
    torch.tensor(numbers, dtype=torch.float32)
    assert all(score is None or type(score) is float for score in found)
    return found, logged


# clips in a column


def test_scores_are_those_of_one_direct_call(reward):
    batch = clips(3)
    found, _ = as_trl(LatentsRewardFunc(reward, space=tiny_space(), fps=8.0), 3,
                      latents=list(batch), other=[1, 2, 3])  # fmt: skip
    expected = reward(list(batch), space=tiny_space(), fps=8.0).tolist()
    assert found == expected
    assert len(set(found)) == 3


def test_one_call_without_gradients_gets_all_that_was_said():
    probe, batch = Probe(), clips(3).requires_grad_()
    function = LatentsRewardFunc(probe, space=tiny_space(), fps=8.0, num_frames=17,
                                 normalize=False, column="clip", missing="none")  # fmt: skip
    found, logged = as_trl(function, 4, clip=[batch[2], None, batch[0], batch[1]])
    means = batch.mean(dim=(1, 2, 3, 4)).tolist()
    assert found == [means[2], None, means[0], means[1]]
    assert probe.calls == [(3, tiny_space(), 8.0, 17, False)]
    assert not probe.grad
    assert logged == {}


def test_a_clip_is_a_tensor_an_array_nested_lists_or_a_file(reward, tmp_path):
    folder = write_clips(tmp_path, 1)
    path, clip = folder.infos[0].path, folder[0].latents
    forms = [clip, clip.numpy(), clip.tolist(), path, str(path)]
    for form in forms:
        found, _ = as_trl(LatentsRewardFunc(reward), 1, latents=[form])
        assert found == reward([clip]).tolist()


def test_files_say_their_space_and_rate_themselves(reward, tmp_path):
    first = write_clips(tmp_path / "slow", 2, fps=8.0)
    second = write_clips(tmp_path / "fast", 2, seed=7, fps=16.0)
    paths = [str(folder.infos[index].path) for index in (0, 1) for folder in (first, second)]
    values = [folder[index].latents for index in (0, 1) for folder in (first, second)]
    probe = Probe()
    foreign = tiny_space(id="foreign")
    found, _ = as_trl(LatentsRewardFunc(probe, space=foreign, fps=999.0, num_frames=5), 5,
                      latents=[*paths, values[0]])  # fmt: skip
    assert found == [clip.mean().item() for clip in [*values, values[0]]]
    assert [(call[0], call[1].id, *call[2:4]) for call in probe.calls] == [
        (2, "tiny", 8.0, None),
        (2, "tiny", 16.0, None),
        (1, "foreign", 999.0, 5),
    ]
    too_fast = write_clips(tmp_path / "too fast", 1, fps=120.0)
    with pytest.raises(GeometryError, match=r"clip 0 \(row 1 of the batch\): .*120"):
        as_trl(LatentsRewardFunc(reward), 2, latents=[paths[0], str(too_fast.infos[0].path)])


def test_rows_without_a_clip(reward):
    batch = clips(2)
    rows = [None, batch[0], None, batch[1]]
    with pytest.raises(ValueError, match=r"2 of 4 rows have no clip in 'latents': rows \[0, 2\]"):
        as_trl(LatentsRewardFunc(reward), 4, latents=rows)
    found, _ = as_trl(LatentsRewardFunc(reward, missing="none"), 4, latents=rows)
    first, second = reward(batch).tolist()
    assert found == [None, pytest.approx(first, abs=1e-5), None, pytest.approx(second, abs=1e-5)]
    probe = Probe()
    found, logged = as_trl(LatentsRewardFunc(probe, missing="none"), 2, latents=[None, None])
    assert (found, logged, probe.calls) == ([None, None], {}, [])


def test_what_is_no_clip_is_refused_with_its_row(reward, tmp_path):
    function, clip = LatentsRewardFunc(reward, missing="none", space=tiny_space()), clips(1)[0]
    with pytest.raises(ValueError, match=r"no column 'latents' .* only \['clip', .*rollout_func"):
        as_trl(function, 1, clip=[clip])
    with pytest.raises(ValueError, match="has 2 rows for 3 completions"):
        as_trl(function, 3, latents=[clip, clip])
    with pytest.raises(ValueError, match="row 1 of column 'latents' is not a clip"):
        as_trl(function, 2, latents=[clip, [[1.0, 2.0], [3.0]]])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        as_trl(function, 1, latents=["nowhere.safetensors"])
    (tmp_path / "x.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(LatentFileError):
        as_trl(function, 1, latents=[str(tmp_path / "x.safetensors")])
    bad = clip.clone()
    bad[0, 0, 0, 0] = torch.nan
    with pytest.raises(LatentSpaceError, match=r"clip 1 \(row 2 of the batch\): .*"):
        as_trl(function, 3, latents=[None, clip, bad])
    with pytest.raises(LatentSpaceError, match="foreign"):
        as_trl(LatentsRewardFunc(reward, space=tiny_space(id="foreign")), 1, latents=[clip])


@pytest.mark.parametrize(
    ("returned", "error", "text"),
    [
        (torch.zeros(1), ValueError, r"shape \(1,\), expected \(2,\)"),
        (
            torch.tensor([0.0, torch.nan]),
            NonFiniteError,
            r"clip 1 \(row 1 of .* score nan",
        ),
    ],
)
def test_a_callable_of_ones_own_is_checked(returned, error, text):
    def careless(latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True):
        return returned

    with pytest.raises(error, match=text):
        as_trl(LatentsRewardFunc(careless), 2, latents=list(clips(2)))


def test_parts_of_the_score_are_logged(reward):
    batch = list(clips(3))
    _, logged = as_trl(LatentsRewardFunc(reward, name="video"), 3, latents=batch)
    raw = reward.details(batch).raw.double()
    # over the batch: divided by n, not n - 1
    spread = ((raw - raw.mean()) ** 2).mean().sqrt().item()
    assert logged == {
        "rewards/video/raw/mean": pytest.approx(raw.mean().item()),
        "rewards/video/raw/std": pytest.approx(spread),
    }
    aspects = GTSVJReward(tiny_aspect_judge(), weights={"focus": 1.0})
    _, logged = as_trl(LatentsRewardFunc(aspects, name="v", normalize=False), 3, latents=batch)
    clear = aspects.details(batch, normalize=False).aspects["clear"].mean().item()
    assert logged["rewards/v/clear/mean"] == pytest.approx(clear, abs=1e-5)
    assert len(logged) == 2 * 4
    for combined in (
        WeightedReward([("x", reward, 2.0), ("y", aspects, 0.0)]),
        RewardEnsemble({"x": reward, "y": aspects}),
    ):
        found, logged = as_trl(LatentsRewardFunc(combined, name="v"), 3, latents=batch)
        assert found == pytest.approx(combined(batch).tolist(), abs=1e-5)
        mean = reward(batch).mean().item()
        assert logged["rewards/v/x/mean"] == pytest.approx(mean, abs=1e-5)
        assert set(logged) == {f"rewards/v/{part}/{s}" for part in "xy" for s in ("mean", "std")}


def test_they_pickle(reward, judge_of_pipe, pipe):
    batch = list(clips(2))
    latents = LatentsRewardFunc(reward, name="mine")
    again = pickle.loads(pickle.dumps(latents))
    assert again.__name__ == "mine"
    assert as_trl(again, 2, latents=batch) == as_trl(latents, 2, latents=batch)
    prompts = PromptRewardFunc(judge_of_pipe, pipe, **SAMPLING)
    again = pickle.loads(pickle.dumps(prompts))
    assert again(["a"], ["dog"], trainer_state=STEP) == prompts(["a"], ["dog"], trainer_state=STEP)


# prompts that a policy writes


def test_videos_are_those_of_the_pipeline(judge_of_pipe, pipe, tiny_vae):
    function = PromptRewardFunc(judge_of_pipe, pipe, seed=4, batch_size=2, **SAMPLING)
    prompts, texts = ["write", "write", "other"], ["a dog runs", " the cat\n", "a dog runs"]
    found = function(prompts, texts, trainer_state=STEP, completion_ids=[[1]] * 3, column=[0] * 3)
    for prompt, text, score in zip(prompts, texts, found, strict=True):
        seed = noise_seed(4, prompt, 3)
        arguments = {key: value for key, value in SAMPLING.items() if key != "fps"}
        direct = pipe(
            text.strip(),
            generator=torch.Generator().manual_seed(seed),
            max_sequence_length=6,
            output_type="latent",
            **arguments,
        ).frames
        expected = judge_of_pipe(direct, space=LatentSpace.from_vae(tiny_vae), fps=8.0).item()
        assert score == pytest.approx(expected, abs=1e-5)
    assert np.ptp(found) > 1e-3, "rewards are all alike: the test proves nothing"


def test_prompts_are_compared_and_not_noises(judge_of_pipe, pipe):
    function = PromptRewardFunc(judge_of_pipe, pipe, batch_size=4, **SAMPLING)
    prompts, texts = ["p", "p", "q", "p", "q"], ["dog", "cat", "dog", "dog", "dog"]
    found = function(prompts, texts, trainer_state=STEP)
    assert found[0] == found[3]
    assert found[2] == found[4]
    assert pipe.asked == [["dog", "cat", "dog"]]  # (p, dog), (p, cat), (q, dog)
    assert abs(found[0] - found[2]) > 1e-4
    # a group that is spread over processes, in another order
    for row in (4, 1, 0):
        alone = function([prompts[row]], [texts[row]], trainer_state=STEP)
        assert alone == pytest.approx([found[row]], abs=1e-5)
    later = function(["p"], ["dog"], trainer_state=SimpleNamespace(global_step=4))
    other = PromptRewardFunc(judge_of_pipe, pipe, seed=1, **SAMPLING)
    assert abs(later[0] - found[0]) > 1e-4
    assert abs(other(["p"], ["dog"], trainer_state=STEP)[0] - found[0]) > 1e-4


def test_videos_are_generated_in_batches(judge_of_pipe, pipe):
    function = PromptRewardFunc(judge_of_pipe, pipe, batch_size=2, **SAMPLING)
    function(["p"] * 4, ["dog", "cat", "dog", "red"], trainer_state=STEP)
    assert pipe.asked == [["dog", "cat"], ["red"]]
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        PromptRewardFunc(judge_of_pipe, pipe, batch_size=0, **SAMPLING)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 9), st.text(max_size=5), st.integers(0, 9), st.integers(1, 9))
def test_noise_depends_on_seed_prompt_and_step(seed, prompt, step, change):
    noise = noise_seed(seed, prompt, step)
    chat = [{"role": "user", "content": prompt}]
    assert 0 <= noise < 2**63
    assert noise == noise_seed(seed, prompt, step)
    others = {
        noise_seed(seed + change, prompt, step),
        noise_seed(seed, prompt + "x", step),
        noise_seed(seed, prompt, step + change),
        noise_seed(seed, chat, step),
    }
    assert len(others - {noise}) == 4
    assert noise_seed(seed, chat, step) == noise_seed(seed, [dict(reversed(chat[0].items()))], step)


def test_only_text_can_seed_noise():
    with pytest.raises(TypeError, match="must be text or messages of text"):
        noise_seed(0, [{"role": "user", "content": [object()]}], 0)


def test_text_of_a_completion():
    def says(content, role="assistant"):
        return [{"role": "assistant", "content": "first"}, {"role": role, "content": content}]

    assert completion_text("  a dog\n") == "a dog"
    assert completion_text(says(" a dog ")) == "a dog"
    assert completion_text(says(None)) == ""
    assert completion_text([{"role": "assistant"}]) == ""
    with pytest.raises(ValueError, match="got role 'tool' last of 2 messages: pass `to_prompt`"):
        completion_text(says("x", role="tool"))
    with pytest.raises(ValueError, match="got role None last of 0 messages"):
        completion_text([])
    with pytest.raises(ValueError, match="must be a string, got list"):
        completion_text(says([{"type": "text", "text": "x"}]))


def test_conversations_score_as_their_text(judge_of_pipe, pipe):
    function = PromptRewardFunc(judge_of_pipe, pipe, **SAMPLING)
    chat = [{"role": "user", "content": "write"}]
    plain = function([chat, chat], ["dog", "cat"], trainer_state=STEP)
    said = [[{"role": "assistant", "content": text}] for text in ("dog", "cat")]
    assert function([chat, chat], said, trainer_state=STEP) == plain
    last = PromptRewardFunc(judge_of_pipe, pipe, to_prompt=lambda c: c.split(":")[-1], **SAMPLING)
    assert last([chat, chat], ["here:dog", "sure:cat"], trainer_state=STEP) == plain


def test_completions_without_text(judge_of_pipe, pipe):
    prompts, texts = ["p"] * 4, ["dog", " ", "cat", ""]
    with pytest.raises(ValueError, match=r"2 of 4 completions have no text: rows \[1, 3\]"):
        PromptRewardFunc(judge_of_pipe, pipe, **SAMPLING)(prompts, texts, trainer_state=STEP)
    assert pipe.asked == []
    function = PromptRewardFunc(judge_of_pipe, pipe, empty="none", batch_size=2, **SAMPLING)
    dog, cat = function(["p"] * 2, ["dog", "cat"], trainer_state=STEP)
    assert function(prompts, texts, trainer_state=STEP) == [dog, None, cat, None]
    assert function(["p"], [""], trainer_state=STEP, log_metric=pytest.fail) == [None]


def test_text_beyond_the_pipelines_limit_is_never_cut_in_silence(judge_of_pipe, pipe):
    # The tiny transformer reads 6 tokens, a word is one.
    whole, long = "a dog runs on the beach", "a dog runs on the beach red blue"
    with pytest.raises(ValueError, match=r"1 of 2 .* the 6 tokens .* by up to 2: rows \[1\]"):
        PromptRewardFunc(judge_of_pipe, pipe, **SAMPLING)(
            ["p"] * 2, [whole, long], trainer_state=STEP
        )
    logged, extra = {}, {}
    function = PromptRewardFunc(judge_of_pipe, pipe, too_long="truncate", batch_size=2, **SAMPLING)
    found = function(
        ["p"] * 4,
        [whole, long, "dog", long + " red"],
        trainer_state=STEP,
        log_metric=lambda name, value: logged.update({name: value}),
        log_extra=lambda name, values: extra.update({name: values}),
    )
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert abs(found[0] - found[2]) > 1e-4
    assert extra == {"gtsvj_prompt/cut_tokens": [0, 2, 0, 3]}
    assert logged["rewards/gtsvj_prompt/cut_share"] == 0.5
    assert {"rewards/gtsvj_prompt/raw/mean", "rewards/gtsvj_prompt/raw/std"} < logged.keys()


def test_padding_of_the_pipeline_is_not_scored(judge_of_pipe, tiny_vae):
    # 9 frames are 3 latents, which CogVideoX 1.5 pads in front to 4.
    pipe = tiny_pipeline(tiny_vae, "1.5")
    function = PromptRewardFunc(judge_of_pipe, pipe, **SAMPLING)
    [clip] = function.generate([("a dog", 1)])
    assert clip.shape == (3, 4, 8, 12)
    arguments = {key: value for key, value in SAMPLING.items() if key != "fps"}
    padded = pipe("a dog", generator=torch.Generator().manual_seed(1), max_sequence_length=6,
                  output_type="latent", **arguments).frames[0]  # fmt: skip
    torch.testing.assert_close(clip, padded[1:])


def test_pipelines_that_do_not_fit_are_refused(judge_of_pipe, reward, pipe):
    with pytest.raises(ValueError, match=r"expected 4f \+ 1 frames .* got 10"):
        PromptRewardFunc(judge_of_pipe, pipe, **{**SAMPLING, "num_frames": 10})
    with pytest.raises(LatentSpaceError, match=r"\(row 0 of .*expected latents of `tiny`"):
        PromptRewardFunc(reward, pipe, **SAMPLING)(["p"], ["dog"], trainer_state=STEP)
    with pytest.raises(GeometryError, match=r"\(row 0 of"):
        PromptRewardFunc(judge_of_pipe, pipe, **{**SAMPLING, "fps": 99.0})(
            ["p"], ["dog"], trainer_state=STEP
        )


@pytest.mark.usefixtures("unchecked")
def test_choices_are_checked(judge_of_pipe, pipe):
    with pytest.raises(ValueError, match=r"`missing` must be one of \['error', 'none'\], got 'x'"):
        LatentsRewardFunc(judge_of_pipe, missing="x")
    for choice in ("empty", "too_long"):
        with pytest.raises(ValueError, match=f"`{choice}` must be one of .* got 'none '"):
            PromptRewardFunc(judge_of_pipe, pipe, **{choice: "none "}, **SAMPLING)


def test_the_function_names_are_the_classes():
    assert latents_reward_func is LatentsRewardFunc
    assert prompt_reward_func is PromptRewardFunc


# in a real trainer


class Recorder:
    """Passes calls on to a reward function and keeps what went in and came out."""

    def __init__(self, function):
        self.function = function
        self.calls = []
        self.__name__ = function.__name__

    def __call__(self, **arguments):
        found = self.function(**arguments)
        self.calls.append((arguments, found))
        return found


def train(function, rows, folder, steps=2, **changes):
    """Two steps of GRPO of a tiny language model, two completions for each prompt."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    torch.manual_seed(0)
    policy = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(WORDS), hidden_size=32, intermediate_size=64,
                    num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                    max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=1)
    )  # fmt: skip
    args = trl.GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        report_to="none",
        max_steps=steps,
        num_generations=2,
        per_device_train_batch_size=4,
        max_completion_length=6,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = trl.GRPOTrainer(
        policy,
        reward_funcs=function,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
        **changes,
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "reward" in entry]


@pytest.mark.slow
def test_a_trainer_learns_from_videos_of_its_completions(judge_of_pipe, pipe, tmp_path):
    function = PromptRewardFunc(judge_of_pipe, pipe, empty="none", batch_size=4, **SAMPLING)
    recorder = Recorder(function)
    log = train(recorder, [{"prompt": "a dog"}, {"prompt": "the cat runs"}] * 4, tmp_path)
    assert len(log) == len(recorder.calls) == 2
    for step, (entry, (arguments, found)) in enumerate(zip(log, recorder.calls, strict=True)):
        # None is left out of the figures, nothing stands in for it.
        present = [score for score in found if score is not None]
        assert entry["rewards/gtsvj_prompt/mean"] == pytest.approx(np.mean(present), abs=1e-5)
        raw = np.mean([score * 0.5 + 0.25 for score in present])  # reward_std, reward_mean
        assert entry["rewards/gtsvj_prompt/raw/mean"] == pytest.approx(raw, abs=1e-5)
        again = function(arguments["prompts"], arguments["completions"],
                         trainer_state=SimpleNamespace(global_step=step))  # fmt: skip
        assert again == found
    written = [text for arguments, _ in recorder.calls for text in arguments["completions"]]
    assert "" in written, "no completion was empty: the test proves nothing about None"
    assert any(score is None for _, found in recorder.calls for score in found)
    assert any(entry["grad_norm"] > 0 for entry in log)


@pytest.mark.slow
def test_a_trainer_stops_when_the_reward_refuses(judge_of_pipe, pipe, tmp_path):
    function = PromptRewardFunc(judge_of_pipe, pipe, empty="none", **{**SAMPLING, "fps": 99.0})
    with pytest.raises(GeometryError, match="99"):
        train(function, [{"prompt": "a dog"}] * 8, tmp_path)


@pytest.mark.slow
def test_a_trainer_passes_a_column_of_paths(reward, tmp_path):
    folder = write_clips(tmp_path / "clips", 1)
    path = str(folder.infos[0].path)
    rows = [{"prompt": "a dog", "latents": path}, {"prompt": "the cat", "latents": None}] * 4
    recorder = Recorder(LatentsRewardFunc(reward, missing="none"))
    log = train(recorder, rows, tmp_path, steps=1)
    [expected] = reward([folder[0].latents]).tolist()
    [(arguments, found)] = recorder.calls
    scores = [score for score in found if score is not None]
    assert scores == pytest.approx([expected] * 2, abs=1e-5)
    assert [score is None for score in found] == [p == "the cat" for p in arguments["prompts"]]
    assert log[0]["rewards/gtsvj_latents/mean"] == pytest.approx(expected, abs=1e-5)
    # One clip for all completions of a prompt: no advantage, as the docstring warns.
    assert log[0]["reward_std"] == pytest.approx(0, abs=1e-6)
    assert log[0]["grad_norm"] == pytest.approx(0, abs=1e-6)


def rollout_with_clips(prompts, trainer):
    """Random completions, and a clip for each."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(3, len(WORDS), (len(prompts), 4), generator=generator).tolist()
    return {
        "prompt_ids": [trainer.processing_class(prompt).input_ids for prompt in prompts],
        "completion_ids": words,
        "logprobs": [[-1.0] * 4 for _ in prompts],
        "clip": [clips(1, seed=sum(ids))[0] for ids in words],
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
def test_clips_of_a_rollout_teach(reward, tmp_path):
    recorder = Recorder(LatentsRewardFunc(reward, column="clip"))
    log = train(recorder, [{"prompt": "a dog"}] * 8, tmp_path, steps=1,
                rollout_func=rollout_with_clips)  # fmt: skip
    [(arguments, found)] = recorder.calls
    assert found == reward(arguments["clip"]).tolist()
    assert log[0]["rewards/gtsvj_latents/std"] > 1e-3
    assert log[0]["grad_norm"] > 1e-6


def names_of_examples(folder):
    """What the examples take for granted: a policy, its tokenizer, arguments, requests."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    policy = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(WORDS), hidden_size=16, intermediate_size=16,
                    num_hidden_layers=1, num_attention_heads=1, bos_token_id=1, eos_token_id=1)
    )  # fmt: skip

    def config(output_dir, **_):
        return trl.GRPOConfig(
            output_dir=str(folder / output_dir), use_cpu=True, bf16=False, report_to="none",
            max_steps=1, num_generations=2, per_device_train_batch_size=2,
            max_completion_length=6, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip

    return {
        "GRPOTrainer": trl.GRPOTrainer,
        "GRPOConfig": config,
        "model": policy,
        "args": config("out"),
        "requests": Dataset.from_list([{"prompt": "a dog"}] * 4),
        "tokenizer": tiny_tokenizer(),
        "keeps_to_the_request": lambda completions, **_: [float("dog" in c) for c in completions],
        "rollout_with_clips": rollout_with_clips,
    }


def run(example, name, names):
    exec(compile(example, name, "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
@pytest.mark.parametrize("function", [LatentsRewardFunc, PromptRewardFunc])
def test_examples_of_the_docstrings_run(function, judge_of_pipe, pipe, tmp_path):
    example = example_of(function)
    names = {**names_of_examples(tmp_path), "reward": judge_of_pipe, "pipe": pipe}
    names[function.__name__] = function
    trainer = run(example, function.__name__, names)["trainer"]
    assert trainer.state.global_step == 1
