"""Predictions and feedback, as Inkdigits 0.1.0 has them.

Revision ID: 0002
Revises: nothing
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = None


def upgrade() -> None:
    """Make the table, with an index for each filter of the history."""
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
        sa.Column("true_digit", sa.SmallInteger),
        sa.Column("feedback_us", sa.BigInteger),
        sa.Column("feedback_by", sa.String(128)),
    )
    for column in ("decision", "digit", "owner"):
        op.create_index(f"ix_predictions_{column}", "predictions", [column, "created_us", "id"])
    op.create_index("ix_predictions_time", "predictions", ["created_us", "id", "decision"])
    given = sa.text("true_digit IS NOT NULL")
    op.create_index(
        "ix_predictions_corrected",
        "predictions",
        ["created_us", "id", "true_digit", "digit", "decision", "confidence"],
        sqlite_where=given,
        postgresql_where=given,
    )
