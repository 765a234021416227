"""The process of `test_fork.py`: children of `fork` ask with a client that their parent used."""

import multiprocessing

import torch
from safetensors.torch import load_file, save_file

from tests.serving.server import client_of

ROUNDS = 20


def ask(index, clip, client, barrier, results):
    barrier.wait()
    with client:
        results.put((index, [client(clip).item() for _ in range(ROUNDS)]))


def main(port, latents, found):
    """Child i asks for clip i, several times and all at once; what it got is row i of the file."""
    fork = multiprocessing.get_context("fork")
    clips = load_file(latents)["latents"].split(1)
    barrier, results = fork.Barrier(len(clips)), fork.Queue()
    with client_of(port, timeout=20, retry_for=0) as client:
        client(clips[0])  # opens the connection that the children inherit
        children = [
            fork.Process(target=ask, args=(index, clip, client, barrier, results))
            for index, clip in enumerate(clips)
        ]
        for child in children:
            child.start()
        rows = dict(results.get(timeout=60) for _ in children)
        for child in children:
            child.join()
        again = client(clips[0]).tolist()  # the children closed theirs, not this one
    scores = torch.tensor([rows[index] for index in range(len(clips))])
    save_file({"children": scores, "parent": torch.tensor(again)}, found)
