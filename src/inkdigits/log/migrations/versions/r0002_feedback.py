"""Feedback, and an index for each filter of the history.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BY_FILTER = ("decision", "digit", "owner")
_FEEDBACK = ("true_digit", "feedback_us", "feedback_by")


def upgrade() -> None:
    """Add what feedback says, and the indexes."""
    op.add_column("predictions", sa.Column("true_digit", sa.SmallInteger))
    op.add_column("predictions", sa.Column("feedback_us", sa.BigInteger))
    op.add_column("predictions", sa.Column("feedback_by", sa.String(128)))
    for column in _BY_FILTER:
        op.create_index(f"ix_predictions_{column}", "predictions", [column, "created_us", "id"])
    given = sa.text("true_digit IS NOT NULL")
    op.create_index(
        "ix_predictions_corrected",
        "predictions",
        ["created_us", "id", "true_digit", "digit", "decision", "confidence"],
        sqlite_where=given,
        postgresql_where=given,
    )


def downgrade() -> None:
    """Drop the feedback and the indexes."""
    for name in ("corrected", *_BY_FILTER):
        op.drop_index(f"ix_predictions_{name}", "predictions")
    for column in _FEEDBACK:
        op.drop_column("predictions", column)
