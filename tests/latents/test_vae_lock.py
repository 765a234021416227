"""Threads that share a VAE take turns; copies and forked processes do not wait for one another."""

import copy
import gc
import os
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gtsvj_reward.latents import LatentSpace, vae_lock
from tests.latents.tiny import make_vae
from tests.ranks import on_unix, run_apart


def free(vae):
    """Whether another thread could take a VAE's lock now."""

    def taken():
        lock = vae_lock(vae)
        got = lock.acquire(blocking=False)
        if got:
            lock.release()
        return got

    with ThreadPoolExecutor(1) as other:
        return other.submit(taken).result()


def test_a_vae_has_one_lock_for_all_threads_and_others_have_others():
    vae, other = make_vae(), make_vae()
    with ThreadPoolExecutor(8) as pool:
        locks = list(pool.map(vae_lock, [vae] * 64))
    assert all(lock is locks[0] for lock in locks)
    with vae_lock(vae):
        assert not free(vae)
        assert free(other)
        with vae_lock(vae):  # calls of ours may nest
            assert not free(vae)
        assert not free(vae)
    assert free(vae)


@torch.no_grad()
def test_it_is_held_while_a_vae_encodes_and_decodes_and_freed_by_an_error(monkeypatch):
    vae = make_vae()
    space, frames = LatentSpace.from_vae(vae), torch.rand(1, 1, 3, 16, 16)
    seen = []
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda *_: seen.append(free(vae)))
    space.decode(space.encode(frames, vae), vae)
    assert seen == [False, False]
    assert free(vae)

    def broken(_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(vae, "encode", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        space.encode(frames, vae)
    assert free(vae)


def test_copies_have_a_lock_of_their_own():
    vae = make_vae()
    with vae_lock(vae):
        for twin in (copy.copy(vae), copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
            assert free(twin)
            assert vae_lock(twin) is not vae_lock(vae)


def test_a_lock_lives_as_long_as_its_vae():
    vae = make_vae()
    lives = [weakref.ref(vae), weakref.ref(vae_lock(vae))]
    gc.collect()
    assert all(ref() is not None for ref in lives)
    del vae
    gc.collect()
    assert all(ref() is None for ref in lives)


@on_unix
def test_a_forked_process_does_not_wait_for_threads_of_its_parent():
    assert run_apart([fork_beside_a_thread]) == [0]


def fork_beside_a_thread():
    """0 if a child that another thread forked can hold the lock that this thread holds."""
    vae = make_vae()
    vae_lock(vae).acquire()
    with ThreadPoolExecutor(1) as pool:
        child = pool.submit(fork_and_try, vae).result()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_and_try(vae):
    """Process id of a child that ends with 0 if it can hold the lock."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if vae_lock(vae).acquire(blocking=False) else 1)
        finally:
            os._exit(1)
    return child
