"""Several copies of the judge behind one address, as a Ray Serve deployment.

Each replica loads the judge and runs the same application, with a queue and limits of its own;
Ray's proxy receives bodies and spreads requests. Ray is imported when needed.

Whoever reaches Ray's own ports can run code as the server. A Ray started here therefore listens on
127.0.0.1 and requires a token that only its own processes have.
"""

import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from gtsvj_reward.serving.access import check_address
from gtsvj_reward.serving.settings import ServeSettings, build_app

logger = logging.getLogger(__name__)

NAME = "gtsvj"
FIRST_SAFE = (2, 58)
"""Earlier versions unpickled anything sent to a public port, with or without a token."""
DRAIN_SECONDS = 600.0
"""How long a replica may take to answer what it has taken when it is stopped."""


def import_serve() -> Any:
    """The module `ray.serve`.

    Raises:
        ImportError: with how to install it.
    """
    try:
        from ray import serve as ray_serve
    except ImportError as error:
        raise ImportError(
            "--engine ray needs Ray: pip install 'gtsvj-reward[ray,serve]'"
        ) from error
    return ray_serve


def start_ray() -> None:
    """Start Ray on this machine, for its own processes only, or join the cluster of `RAY_ADDRESS`.

    Raises:
        ImportError: if Ray is not installed, or is too old.
    """
    joins = "RAY_ADDRESS" in os.environ  # access was configured when it was started
    if not joins:
        # All are read when Ray is imported. A token that was set is kept: others may know it.
        os.environ["RAY_AUTH_MODE"] = "token"
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # Without clusters Ray listens on 127.0.0.1, on every system; the option that should do so,
        # `_node_ip_address`, takes an address that other machines reach in place of that one.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import_serve()
    import ray

    if tuple(map(int, ray.__version__.split(".")[:2])) < FIRST_SAFE:
        least = ".".join(map(str, FIRST_SAFE))
        raise ImportError(
            f"Ray {ray.__version__} lets everybody who reaches its ports run code in the replicas: "
            f"install {least} or later, pip install 'ray[serve]>={least}'"
        )
    if joins:
        ray.init()
    else:
        ray.init(include_dashboard=False)


def application(settings: ServeSettings, *, replicas: int, replica_gpus: float = 0.0) -> Any:
    """The Ray Serve application, for `ray.serve.run` or a config file of one's own.

    Args:
        settings: what each replica serves.
        replicas: copies of the judge.
        replica_gpus: GPUs, or parts of one, that Ray sets aside for each.
    """
    if replicas < 1:
        raise ValueError(f"`replicas` must be at least 1, got {replicas}")
    ray_serve = import_serve()

    class Replica:
        """The application in one process."""

    def build() -> Any:
        # A partial of `build_app` would be taken for an application.
        return build_app(settings)

    decorate = ray_serve.deployment(
        name=NAME,
        num_replicas=replicas,
        # The application itself answers when it is full; Ray only must not hold requests back.
        max_ongoing_requests=2 * settings.limits.max_queue,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        ray_actor_options={"num_gpus": replica_gpus},
    )
    return decorate(ray_serve.ingress(build)(Replica)).bind()


def serve(
    settings: ServeSettings,
    *,
    host: str,
    port: int,
    replicas: int,
    announce: Callable[[str], None] = logger.info,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was taken.

    Starts Ray on this machine, or joins the cluster that `RAY_ADDRESS` names.

    Args:
        settings: what each replica serves.
        host: address of Ray's proxy; any but 127.0.0.1 requires a token.
        port: of the proxy.
        replicas: copies of the judge.
        announce: gets the address once all replicas run.

    Raises:
        ValueError: for an address that other machines reach, without a token.
        ImportError: if Ray is not installed.
    """
    check_address(host, settings.token)
    start_ray()
    ray_serve = import_serve()
    gpus = 1.0 if settings.device.startswith("cuda") else 0.0
    app = application(settings, replicas=replicas, replica_gpus=gpus)
    ray_serve.start(http_options={"host": host, "port": port})
    try:
        ray_serve.run(app, name=NAME, route_prefix="/")
        signal.signal(signal.SIGTERM, stop)  # now, since Ray has set one of its own
        announce(f"http://{host}:{port}")
        threading.Event().wait()
    except KeyboardInterrupt:
        # Replicas finish what they have accepted; `shutdown` alone would end the proxies first.
        ray_serve.delete(NAME)
    finally:
        ray_serve.shutdown()


def stop(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C would."""
    del number, frame
    raise KeyboardInterrupt
