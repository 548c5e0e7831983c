"""What uploads of other formats were converted to."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("assets", sa.Column("converted_sha256", sa.String(length=64), nullable=True))
    op.add_column("assets", sa.Column("converted_size_bytes", sa.BigInteger(), nullable=True))
    op.create_index("assets_converted_bytes", "assets", ["project_id", "converted_sha256"], unique=False)


def downgrade() -> None:
    op.drop_index("assets_converted_bytes", "assets")
    op.drop_column("assets", "converted_size_bytes")
    op.drop_column("assets", "converted_sha256")
