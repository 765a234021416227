"""How well clips show their prompts, scored by the frozen generator without training."""

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.reward.clips import Clips
from gtsvj_reward.reward.generator_score import GeneratorScore


class PromptScore(GeneratorScore):
    """How much better a frozen generator denoises a clip under its prompt than under none.

    The score is the generator's squared error with the empty prompt minus that with the clip's own
    prompt, with the same noise for both: high if the clip shows its prompt, about 0 if the prompt
    does not help. An image-to-video generator gets the clips' images in both passes.

    See `GeneratorScore` for arguments and details.
    """

    name = "prompt_score"

    wants_text = needs_text = True

    def check_generator(self) -> None:
        """Accept any generator; read images if it does."""
        self.reads_image = self.backbone.image_use != "never"

    def check(self, clips: Clips) -> None:
        """See `GeneratorScore.check`."""
        if clips.text is None:
            raise ValueError(
                "the prompt score needs the prompts of the clips: pass `text`, for example "
                "text_of(pipe, prompts)"
            )
        if clips.image is None and self.backbone.image_use == "always":
            raise ValueError(
                "the prompt score of an image-to-video generator needs the images of the clips: "
                "pass `image`, for example image_of(pipe, images, ...)"
            )

    def gains(
        self, latents: Float[Tensor, "batch time channel height width"], clips: Clips
    ) -> Float[Tensor, "batch level step"]:
        """See `GeneratorScore.gains`."""
        text = None if clips.text is None else clips.text.to(self.device)
        without = self.errors(latents, self.empty_for(len(latents)), clips.image)
        return without - self.errors(latents, text, clips.image)
