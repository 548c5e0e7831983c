"""What a worker process works with, made once and passed to whatever needs it."""

import threading
from dataclasses import dataclass, field

from db.queue import Bell
from db.session import Database
from db.settings import Settings
from db.storage import ObjectStore
from worker.sandbox import Sandbox


@dataclass(frozen=True, kw_only=True)
class Services:
    settings: Settings
    database: Database
    store: ObjectStore
    bell: Bell
    sandbox: Sandbox
    worker_id: str
    threads: int
    """That a job's computation may use."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set when the process has been asked to end: jobs are given back."""
