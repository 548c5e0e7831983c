"""Settings: one frozen class, read once from the environment at the edge and passed in from there."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 2**20
GIB = 2**30


class Settings(BaseSettings):
    """Read from `MODELPRESS_*` variables. Whatever is not set is embedded: SQLite and files under `data`."""

    model_config = SettingsConfigDict(env_prefix="MODELPRESS_", frozen=True, extra="forbid")

    data: Path = Field(Path("data"), description="folder of the embedded database, objects and job folders")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite under `data`")
    broker_url: str = Field("", description="redis:// URL of Redis or Valkey; empty: the embedded server")
    storage_url: str = Field(
        "", description="file:///folder or s3://bucket/prefix; empty: files under `data`"
    )
    s3_endpoint: str | None = Field(None, description="of an S3 server that is not Amazon's")
    s3_public_endpoint: str | None = Field(
        None, description="the endpoint as clients reach it; set it to redirect downloads to presigned URLs"
    )
    s3_access_key: SecretStr | None = Field(
        None, description="unset: boto3's own chain of environment, profile and instance role"
    )
    s3_secret_key: SecretStr | None = Field(None, description="of the access key")
    s3_region: str = Field("us-east-1", description="of the bucket")

    auth: bool | None = Field(
        None, description="require API keys; unset: only where the service listens beyond loopback"
    )
    default_project: str = Field(
        "default", description="whose data a caller without a key sees, where keys are off"
    )

    max_upload_bytes: int = Field(16 * GIB, gt=0, description="of one model or dataset")
    project_max_stored_bytes: int = Field(100 * GIB, gt=0, description="quota of a new project")
    project_max_running_jobs: int = Field(8, gt=0, description="quota of a new project")
    project_max_queued_jobs: int = Field(1000, gt=0, description="quota of a new project")
    step_cache_max_bytes: int = Field(20 * GIB, ge=0, description="of each project's kept step results")
    step_cache_max_entries: int = Field(1000, ge=0, description="of each project's kept step results")
    inspection_wait_s: float = Field(5, ge=0, description="an upload call waits so long for its inspection")

    job_time_limit_s: float = Field(6 * 3600, gt=0, description="of running, queue wait not counted")
    queue_limit_s: float = Field(
        7 * 24 * 3600,
        gt=0,
        description="a job that waited so long in the queue since it was submitted expires",
    )
    job_memory_bytes: int = Field(16 * GIB, gt=0, description="of a job's sandbox child")
    inspection_time_limit_s: float = Field(120, gt=0, description="of one look into an upload")
    inspection_memory_bytes: int = Field(4 * GIB, gt=0, description="of an inspection's sandbox child")
    checkpoint_s: float = Field(
        45, ge=0, description="a step that takes long saves so often how far it is, for the next attempt"
    )
    max_attempts: int = Field(3, ge=1, description="a job whose worker died so often fails")
    lease_s: float = Field(30, gt=0, description="a worker not heard of for so long has lost its job")
    heartbeat_s: float = Field(10, gt=0, description="how often a worker renews its lease; well below it")
    sweep_s: float = Field(10, gt=0, description="how often lost and dead work is looked for")
    ring_again_s: float = Field(60, gt=0, description="work that waits is rung for again after so long")
    patience_s: float = Field(
        3600, gt=0, description="the same where the broker still holds messages of its queue"
    )
    cancel_grace_s: float = Field(10, ge=0, description="from TERM to KILL")

    @model_validator(mode="after")
    def _embed_what_is_not_set(self) -> Self:
        data = self.data.absolute()
        defaults = {
            "data": data,
            "database_url": self.database_url or f"sqlite:///{data / 'modelpress.sqlite3'}",
            "storage_url": self.storage_url or (data / "objects").as_uri(),
        }
        for name, value in defaults.items():
            object.__setattr__(self, name, value)
        return self

    @property
    def work_folder(self) -> Path:
        """Where job folders are made on this machine."""
        return self.data / "work"
