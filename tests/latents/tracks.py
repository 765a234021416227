"""Small video files made by hand: any times, codec and sound; frames can be told by their grey."""

from fractions import Fraction

import av
import numpy as np
import torch


def counting_frames(time):
    """Frame i is grey level 4 i, so that a frame can be told by its colour."""
    return (4 * torch.arange(time, dtype=torch.uint8))[:, None, None, None].repeat(1, 32, 48, 3)


def shown(clip):
    return (clip.frames.float().mean(dim=(1, 2, 3)) / 4).round().int().tolist()


def write_track(
    path,
    ticks,
    frames=None,
    *,
    tick=Fraction(1, 1000),
    rate=None,
    codec="libx264",
    pix_fmt="yuv420p",
    source_format="rgb24",
    options=None,
    sound=0.0,
    changes=(),
    container_options=None,
):
    """Frame i is shown at `ticks[i] * tick` seconds, beside `sound` seconds of sound."""
    frames = counting_frames(len(ticks)).numpy() if frames is None else frames
    with av.open(str(path), "w", options=container_options or {}) as container:
        track = container.add_stream(codec, rate=rate or 1 / tick, options=options or {"crf": "10"})
        track.width, track.height, track.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        track.time_base = track.codec_context.time_base = tick
        for name, value in dict(changes).items():
            setattr(track.codec_context, name, value)
        packets = []
        if sound:
            heard = container.add_stream("aac", rate=8000, layout="mono")
            for start in range(0, round(sound * 8000), 1024):
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), "fltp", "mono"
                )
                silence.sample_rate, silence.pts = 8000, start
                packets += heard.encode(silence)
            packets += heard.encode()
        for pts, picture in zip(ticks, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format=source_format)
            frame.pts, frame.time_base = pts, tick
            packets += track.encode(frame)
        container.mux([*packets, *track.encode()])
    return path


def cut(source, path, *, first_packet, first_shown, tick):
    """Copy packets from number `first_packet` on, with frame time `first_shown` at zero."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        packets = [packet for packet in old.demux(old.streams.video[0]) if packet.size]
        track = new.add_stream_from_template(old.streams.video[0])
        for packet in packets[first_packet:]:
            shift = round(Fraction(first_shown) * tick / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = track
            new.mux(packet)
    return path
