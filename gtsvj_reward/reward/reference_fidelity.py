"""How well clips match their reference images, scored by the frozen generator."""

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones.denoising import without_given
from gtsvj_reward.reward.clips import Clips
from gtsvj_reward.reward.generator_score import GeneratorScore


class ReferenceFidelity(GeneratorScore):
    """How much a clip's image helps a frozen image-to-video generator to denoise it.

    The score is the generator's squared error without an image (zeros instead) minus that with the
    clip's own, given the clip's prompt if there is one: high if the clip matches the image. Its
    trajectory says how far into the clip; where the image takes the place of the first latent frame
    (Wan 2.2's 5B model, HunyuanVideo), that one has the mean of the others.

    See `GeneratorScore` for arguments and details.
    """

    name = "reference_fidelity"

    reads_image = True

    def check_generator(self) -> None:
        """See `GeneratorScore.check_generator`."""
        if self.backbone.image_use == "never":
            raise ValueError(
                f"reference fidelity needs an image-to-video generator, this "
                f"{self.backbone.family} generates from text alone"
            )

    def check(self, clips: Clips) -> None:
        """See `GeneratorScore.check`."""
        if clips.image is None:
            raise ValueError(
                "reference fidelity needs the images of the clips: pass `image`, for example "
                "image_of(pipe, images, height=..., width=..., num_frames=...)"
            )

    def gains(
        self, latents: Float[Tensor, "batch time channel height width"], clips: Clips
    ) -> Float[Tensor, "batch level step"]:
        """See `GeneratorScore.gains`."""
        given = clips.text
        text = self.empty_for(len(latents)) if given is None else given.to(self.device)
        gains = self.errors(latents, text, None) - self.errors(latents, text, clips.image)
        return without_given(gains, self.backbone.given_frames)
