"""Numbers, labels as text, and the review queue with the labels of each reviewer.

The column ``true_digit`` stays, unused, for processes of the version before that still run.

Revision ID: 0003
Revises: 0002
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "text": sa.String(64),
    "digits": sa.JSON(none_as_null=True),
    "label": sa.String(64),
    "queued": sa.String(16),
    "reviews_due": sa.SmallInteger(),
    "shadow": sa.JSON(none_as_null=True),
}


def upgrade() -> None:
    """Add the columns, write labels as text, and queue what is unsure and has no label."""
    for name, kind in _COLUMNS.items():
        op.add_column("predictions", sa.Column(name, kind))
    op.execute(
        "UPDATE predictions SET label = CASE true_digit WHEN -1 THEN 'none' "
        "ELSE CAST(true_digit AS VARCHAR(2)) END WHERE true_digit IS NOT NULL"
    )
    op.execute(
        "UPDATE predictions SET reviews_due = 1, "
        "queued = CASE decision WHEN 'reject' THEN 'rejected' ELSE 'unsure' END "
        "WHERE decision IN ('review', 'reject') AND digit IS NOT NULL AND label IS NULL"
    )
    op.create_table(
        "labels",
        sa.Column(
            "prediction_id",
            sa.String(36),
            sa.ForeignKey("predictions.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("reviewer", sa.String(128), primary_key=True),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("labelled_us", sa.BigInteger, nullable=False),
    )
    counted = ["created_us", "id", "decision", "confidence", "model_version"]
    _replace("time", counted)
    corrected = ["created_us", "id", "label", "digit", "decision", "confidence", "text"]
    _replace("corrected", [*corrected, "model_version"], "label IS NOT NULL")
    due = sa.text("reviews_due IS NOT NULL")
    op.create_index(
        "ix_predictions_queue",
        "predictions",
        ["confidence", "id", "queued", "reviews_due", "model_version"],
        sqlite_where=due,
        postgresql_where=due,
    )


def downgrade() -> None:
    """Write labels as digits again; those of numbers and of reviewers are lost."""
    op.drop_table("labels")
    op.execute("UPDATE predictions SET true_digit = NULL")
    op.execute(
        "UPDATE predictions SET true_digit = CASE label WHEN 'none' THEN -1 "
        "ELSE CAST(label AS SMALLINT) END WHERE label = 'none' OR length(label) = 1"
    )
    op.execute(
        "UPDATE predictions SET feedback_us = NULL, feedback_by = NULL WHERE true_digit IS NULL"
    )
    op.execute("DELETE FROM predictions WHERE digits IS NOT NULL")
    op.drop_index("ix_predictions_queue", "predictions")
    _replace("time", ["created_us", "id", "decision"])
    corrected = ["created_us", "id", "true_digit", "digit", "decision", "confidence"]
    _replace("corrected", corrected, "true_digit IS NOT NULL")
    for name in _COLUMNS:
        op.drop_column("predictions", name)


def _replace(name: str, columns: list[str], where: str | None = None) -> None:
    op.drop_index(f"ix_predictions_{name}", "predictions")
    only = None if where is None else sa.text(where)
    op.create_index(
        f"ix_predictions_{name}", "predictions", columns, sqlite_where=only, postgresql_where=only
    )
