"""The predictions.

Revision ID: 0001
Revises: nothing
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the table, with an index over time."""
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("digit", sa.SmallInteger),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.Column("probabilities", sa.JSON, nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32)),
        sa.Column("novelty", sa.Double),
        sa.Column("model_version", sa.String(200), nullable=False),
        sa.Column("input_kind", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(128)),
        sa.Column("ink", sa.LargeBinary, nullable=False),
        sa.Column("ink_sha256", sa.String(64), nullable=False),
        sa.Column("picture", sa.LargeBinary),
    )
    op.create_index("ix_predictions_time", "predictions", ["created_us", "id", "decision"])


def downgrade() -> None:
    """Drop the table and all predictions."""
    op.drop_table("predictions")
