"""Background jobs, one at a time: reading clips, writing tables, fitting judges."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gtsvj_reward.labelling.fitting import Model

logger = logging.getLogger(__name__)

Job = Callable[[], None]

READING, FITTING, WRITING = "reading clips", "fitting the judge", "writing tables"


class Worker:
    """A thread that does jobs in order; of two equal ones that wait, one is enough.

    Attributes:
        read_clips: how many the judge has read.
        busy: description of the current job; empty when idle.
        failures: job -> why it failed the last time.

    Args:
        tables: writes the tables.
        model: what is read for and fitted; None: there is none.
    """

    def __init__(self, tables: Job, model: "Model | None") -> None:
        self.tables, self.model = tables, model
        self.pool = ThreadPoolExecutor(1, "gtsvj-label")
        self.lock = Lock()
        self.waiting: dict[str, Future[None]] = {}
        self.read_clips, self.busy = 0, ""
        self.failures: dict[str, str] = {}

    def write(self) -> None:
        """Write the tables soon."""
        self.submit(WRITING, self.tables)

    def fit(self, job: Job) -> None:
        """Fit soon."""
        self.submit(FITTING, job)

    def read(self, then: Job | None) -> None:
        """Read all clips, and then do a job if there is one."""
        if self.model is not None:
            model = self.model
            self.submit(READING, lambda: model.read(self.reported))
            if then is not None:
                self.fit(then)

    def reported(self, clips: int) -> None:
        """Note how many clips were read."""
        self.read_clips = clips

    def submit(self, name: str, job: Job) -> None:
        """Queue a job, unless it is queued already."""
        with self.lock:
            waiting = self.waiting.get(name)
            if waiting is None or waiting.running() or waiting.done():
                self.waiting[name] = self.pool.submit(self.run, name, job)

    def run(self, name: str, job: Job) -> None:
        """Do a job, and keep what went wrong for the page and the log."""
        self.busy = name
        try:
            job()
        except (ValueError, RuntimeError, OSError) as error:
            self.failures[name] = str(error)
            logger.warning("%s: %s", name, error)
        else:
            self.failures.pop(name, None)
        finally:
            self.busy = ""

    def wait(self) -> None:
        """Wait until all queued jobs are done."""
        for future in list(self.waiting.values()):
            future.result()

    def close(self) -> None:
        """Do what waits, and end."""
        self.pool.shutdown(wait=True)
