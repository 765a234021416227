"""Videos sent instead of latents: read and encoded with the judge's own VAE."""

import base64
import binascii
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from gtsvj_reward.latents.allowance import DecodeLimit
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.stills import PICTURE_ERRORS, rgb_of
from gtsvj_reward.latents.video import read_video
from gtsvj_reward.locks import lock_of
from gtsvj_reward.reward import GTSVJReward
from gtsvj_reward.reward.encoding import Reading
from gtsvj_reward.reward.images import ImageEncoder, check_image_encoder
from gtsvj_reward.reward.texts import Encode, check_encode
from gtsvj_reward.serving.protocol import ScoreRequest


class VideoReader:
    """Makes requests of mp4 files; threads may share one, and take turns at its VAE.

    Args:
        reward: the judge.
        vae: of its latent space, on the device to use; others are rejected.
        reading: how every video is read.
        space_id: name of the VAE's latent space; read from the VAE by default.
        limit: limit on the decoded part of a video.
        encode: a `PromptEncoder` of the generator's pipeline, for a judge that reads prompts.
        encode_image: an `ImageEncoder` of it, for a judge that sees reference images.

    Raises:
        LatentSpaceError: for a VAE of another latent space.
        ValueError: for a judge that needs prompts or images without their encoder, and one that
            reads none with it.
    """

    def __init__(
        self,
        reward: GTSVJReward,
        vae: Any,
        reading: Reading,
        space_id: str | None = None,
        limit: DecodeLimit | None = None,
        encode: Encode | None = None,
        encode_image: ImageEncoder | None = None,
    ) -> None:
        check_encode(reward, encode, "text_encoder")
        check_image_encoder(reward, encode_image, "image_encoder")
        if encode_image is not None:
            images = LatentSpace.from_vae(encode_image.pipe.vae, reward.space.patch_size_t)
            reward.refuse_foreign(images, "what the image encoder's VAE encodes to")
        self.encode, self.encode_image = encode, encode_image
        self.vae = vae
        self.reading = reading
        self.limit = limit or DecodeLimit()
        self.space = LatentSpace.from_vae(vae, reward.space.patch_size_t, id=space_id)
        reward.refuse_foreign(self.space, "what the given VAE encodes to")

    @torch.no_grad()
    def request(self, video: str, prompt: str = "", image: str | None = None) -> ScoreRequest:
        """A judge's request for one video: the raw score of its latents.

        Args:
            video: an mp4 file in base64.
            prompt: its prompt, encoded with `encode`.
            image: its reference image, a png or jpg in base64, encoded with `encode_image`.

        Raises:
            ValueError: if it is not an mp4 file, or cannot be read with `reading`.
        """
        try:
            content = base64.b64decode(video, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"the video is not base64: {error}") from error
        # ffmpeg also reads playlists, which would have it open other files of this machine.
        if content[4:8] != b"ftyp":
            raise ValueError("the video is not an mp4 file, which is what the trainer sends")
        reading = self.reading
        with TemporaryDirectory() as folder:
            path = Path(folder) / "video.mp4"
            path.write_bytes(content)
            clip = read_video(
                path,
                **reading.arguments(),
                temporal_compression=self.space.temporal_compression,
                limit=self.limit,
            )
        parameter = next(self.vae.parameters())
        latents = self.space.encode(clip.batch().to(parameter.device), self.vae).cpu()
        text = seen = None
        if self.encode is not None:
            with lock_of(self):
                text = self.encode([prompt])
        if self.encode_image is not None:
            picture, frames = self.picture(image), len(clip.frames)
            size = {"height": reading.height, "width": reading.width, "num_frames": frames}
            with lock_of(self):
                seen = self.encode_image([picture], **size)
        return ScoreRequest(
            latents=latents,
            text=text,
            image=seen,
            space_id=self.space.id,
            space=self.space,
            fps=reading.fps,
            normalize=False,
        )

    def picture(self, image: str | None) -> Image.Image:
        """The reference image of a video, read as `gtsvj encode` reads a file.

        Raises:
            ValueError: if there is none, it is no png or jpg, or has too many pixels.
        """
        if image is None:
            raise ValueError(
                "this judge requires reference images (image_input='image'), the request has none: "
                "send `image_b64` in the turn of the video, or in the one before it"
            )
        try:
            content = base64.b64decode(image, validate=True)
            with Image.open(BytesIO(content), formats=["PNG", "JPEG"]) as opened:
                if opened.width * opened.height > self.limit.picture:
                    raise ValueError(f"it has {opened.width} x {opened.height} pixels")
                return Image.fromarray(rgb_of(opened))
        except (binascii.Error, *PICTURE_ERRORS) as error:
            raise ValueError(f"the reference image is not a base64 png or jpg: {error}") from error
