"""The promotions of models that were ended by themselves.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "rollbacks",
        sa.Column("promotion", sa.String(300), primary_key=True),
        sa.Column("decided_us", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(400), nullable=False),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("rollbacks")
