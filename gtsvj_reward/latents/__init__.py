"""What a clip is before any network: latent spaces, video files, and latent files."""

from gtsvj_reward.latents.decode import DecodeReport as DecodeReport, decode_folder as decode_folder
from gtsvj_reward.latents.encode import (
    EncodeMismatchError as EncodeMismatchError,
    EncodeReport as EncodeReport,
    encode_folder as encode_folder,
)
from gtsvj_reward.latents.sources import (
    UnreadableVideoError as UnreadableVideoError,
    VideoTooShortError as VideoTooShortError,
    list_videos as list_videos,
)
from gtsvj_reward.latents.space import (
    LatentSpace as LatentSpace,
    LatentSpaceError as LatentSpaceError,
)
from gtsvj_reward.latents.store import (
    ClipInfo as ClipInfo,
    LatentClip as LatentClip,
    LatentFileError as LatentFileError,
    LatentFolder as LatentFolder,
    clip_info as clip_info,
    load_clip as load_clip,
    save_clip as save_clip,
)
from gtsvj_reward.latents.vae_lock import vae_lock as vae_lock
from gtsvj_reward.latents.video import (
    VideoClip as VideoClip,
    read_video as read_video,
)
from gtsvj_reward.latents.writing import preview as preview, write_video as write_video
