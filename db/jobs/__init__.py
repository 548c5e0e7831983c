"""Jobs: every query on them and every transition between their states.

A transition is one conditional UPDATE (`_moves.move`) that names the states it leaves, and for workers the
token of the attempt; no row changed means that someone else was faster, and nothing is written. Its event row
is written in the same transaction. This is the whole table:

| from | to | function | who | guard and effect |
|---|---|---|---|---|
| - | queued | `submit`, `retry` | user | model and datasets ready, quotas |
| queued | running | `claim` | worker | fewer than `max_running_jobs`; attempt + 1, new token, lease |
| queued | failed | `claim`, `lost` | worker, sweeper | attempts used up: code `poison` |
| queued | cancelled | `request_cancel` | user | |
| queued | expired | `lost` | sweeper | waited in the queue longer than `queue_limit_s` |
| running | cancelling | `request_cancel` | user | the token stays; the worker reads it at its heartbeat |
| running | succeeded | `succeed` | worker | token; artifacts and measurements in the same transaction |
| running, cancelling | failed | `fail` | worker | token |
| running, cancelling | cancelled | `cancelled` | worker | token |
| cancelling | cancelled | `succeed`, `release` | worker | token; who asked was promised that it stops |
| running | queued | `release` | worker shutting down | token; the attempt is not counted |
| running | queued | `lost` | sweeper | lease expired; the attempt counts, finished steps and the checkpoint stay |
| running | failed | `lost` | sweeper | lease expired; attempts (`poison`) or time (`time_limit`) used up |
| cancelling | cancelled | `lost` | sweeper | lease expired |

succeeded, failed, cancelled and expired are final. `failed` with code `time_limit` means that the job *ran*
for longer than its `time_limit_s`, over all attempts, queue wait not counted; `expired` that it waited too
long to be started.
"""

from db.jobs.attempts import NotClaimed as NotClaimed
from db.jobs.attempts import cancelled as cancelled
from db.jobs.attempts import claim as claim
from db.jobs.attempts import fail as fail
from db.jobs.attempts import heartbeat as heartbeat
from db.jobs.attempts import keep_artifacts as keep_artifacts
from db.jobs.attempts import release as release
from db.jobs.attempts import succeed as succeed
from db.jobs.attempts import time_left_s as time_left_s
from db.jobs.checkpoints import drop_checkpoint as drop_checkpoint
from db.jobs.checkpoints import find_checkpoint as find_checkpoint
from db.jobs.checkpoints import past_checkpoints as past_checkpoints
from db.jobs.checkpoints import save_checkpoint as save_checkpoint
from db.jobs.queries import find_job as find_job
from db.jobs.queries import get_job as get_job
from db.jobs.queries import list_jobs as list_jobs
from db.jobs.queries import queue_position as queue_position
from db.jobs.recovery import Waiting as Waiting
from db.jobs.recovery import lost as lost
from db.jobs.recovery import mark_rung as mark_rung
from db.jobs.recovery import next_waiting as next_waiting
from db.jobs.steps import finish_step as finish_step
from db.jobs.steps import note as note
from db.jobs.steps import progress as progress
from db.jobs.steps import start_step as start_step
from db.jobs.submission import request_cancel as request_cancel
from db.jobs.submission import retry as retry
from db.jobs.submission import submit as submit
