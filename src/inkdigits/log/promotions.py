"""Which promotions of a model have ended: replicas of a service decide it here, once for all."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import sqlalchemy as sa

from inkdigits.errors import RecordError
from inkdigits.log.database import Database
from inkdigits.log.record import to_microseconds
from inkdigits.log.schema import rollbacks
from inkdigits.log.writer import Writer


class Promotions:
    """The decisions of a store; each call raises StoreUnavailableError as the store's do."""

    def __init__(self, writer: Writer, database: Database) -> None:
        self._writer = writer
        self._database = database

    def end(self, promotion: str, reason: str) -> str:
        """Decide that a promotion has ended; returns the reason of who decided first."""
        now = to_microseconds(datetime.now(UTC))
        row = {"promotion": promotion, "decided_us": now, "reason": reason[:400]}

        def decide() -> None:
            with self._database.transaction(writes=True) as connection:
                connection.execute(sa.insert(rollbacks).values(row))

        # The error says that another replica was first.
        with suppress(RecordError):
            self._writer.run(decide)
        return self.reason(promotion) or reason

    def reason(self, promotion: str) -> str | None:
        """Return why a promotion has ended; None while it has not."""
        query = sa.select(rollbacks.c.reason).where(rollbacks.c.promotion == promotion)
        return self._writer.read(lambda connection: connection.scalar(query))
