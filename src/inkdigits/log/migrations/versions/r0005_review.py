"""Numbers, labels as text, the review queue, ended promotions, and sign-ins that were ended.

The column ``true_digit`` stays, unused, for processes of the version before that still run.

Revision ID: 0005
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0002"


def upgrade() -> None:
    """Add columns, tables and indexes, write labels as text, and queue what is unsure."""
    for column in (
        sa.Column("text", sa.String(64)),
        sa.Column("digits", sa.JSON(none_as_null=True)),
        sa.Column("label", sa.String(64)),
        sa.Column("queued", sa.String(16)),
        sa.Column("reviews_due", sa.SmallInteger()),
        sa.Column("shadow", sa.JSON(none_as_null=True)),
    ):
        op.add_column("predictions", column)
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
    op.create_table(
        "rollbacks",
        sa.Column("promotion", sa.String(300), primary_key=True),
        sa.Column("decided_us", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(400), nullable=False),
    )
    op.create_table(
        "sign_outs",
        sa.Column("sign_in", sa.String(32), primary_key=True),
        sa.Column("ended_us", sa.BigInteger, nullable=False),
    )
    _replace_indexes()


def _replace_indexes() -> None:
    for name in ("time", "corrected"):
        op.drop_index(f"ix_predictions_{name}", "predictions")
    corrected = ["created_us", "id", "label", "digit", "decision", "confidence", "text"]
    for name, columns, where in (
        ("time", ["created_us", "id", "decision", "confidence", "model_version"], None),
        ("corrected", [*corrected, "model_version"], "label IS NOT NULL"),
        (
            "queue",
            ["confidence", "id", "queued", "reviews_due", "model_version"],
            "reviews_due IS NOT NULL",
        ),
    ):
        only = None if where is None else sa.text(where)
        op.create_index(
            f"ix_predictions_{name}",
            "predictions",
            columns,
            sqlite_where=only,
            postgresql_where=only,
        )
