"""A promoted model that leaves the limits of its gate is rolled back by the service itself.

The limits are those of the promotion in ``models/promotions.jsonl``: shares and times that a model
must keep to in its first readings. As soon as these cannot keep to them any more, or as more have
been read at once and do not, the last good version is served again. With a database the decision
is made there, once for all replicas; a replica with a folder of its own follows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from inkdigits.errors import StoreError
from inkdigits.log.locks import file_lock
from inkdigits.model.registry import CURRENT, Registry
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.monitoring.metrics import Readings
from inkdigits.types import Json

if TYPE_CHECKING:
    from inkdigits.log.store import Store

_LOCK: Final = ".rollback.lock"

logger = logging.getLogger(__name__)


def folder_of(model_path: Path | None) -> Path | None:
    """Return the folder of models whose ``current`` a service reads; None if it reads another file.

    >>> folder_of(Path("models/current")), folder_of(Path("models/v2"))
    (PosixPath('models'), None)
    """
    if model_path is None:
        return None
    paths = (model_path, model_path.parent)
    return next((path.parent for path in paths if path.name == CURRENT), None)


def _broken_limit(watch: Json, read: Readings) -> str | None:
    """Return which limit of a gate the first readings cannot keep any more; None if all can."""
    rejected, latency = watch.get("max_rejected"), watch.get("max_latency_ms")
    n = max(watch["readings"], read.total)
    if rejected is not None and read.rejected > rejected * n:
        return (
            f"{read.rejected} of its first {read.total} readings were rejected; "
            f"{rejected * n:.0f} of {n} are allowed"
        )
    if latency is not None and read.seconds * 1000 > latency * n:
        mean = read.seconds * 1000 / max(1, read.total)
        return (
            f"its first {read.total} readings took {mean:.1f} ms each; "
            f"{latency:g} ms over {n} readings are allowed"
        )
    return None


class RollbackWatch:
    """Watches the current promotion, for one process of a service.

    Args:
        folder: of the models.
        readings: what was read with each model version until now.
        reload: has the workers look for the current model.
        store: where replicas decide together; None decides alone.
    """

    def __init__(
        self,
        folder: Path,
        readings: Callable[[], Mapping[str, Readings]],
        reload: Callable[[], None],
        store: Store | None,
    ) -> None:
        self._registry = Registry(folder)
        self._readings = readings
        self._reload = reload
        self._store = store
        self._last: Mapping[str, Readings] = {}
        # The promotion that is watched, what was read with its model before, and whether its first
        # readings are over.
        self._seen, self._before, self._is_over = "", Readings(), False

    def look(self) -> None:
        """Look once, and roll back if it is decided; raises RegistryError where that fails."""
        before, self._last = self._last, self._readings()
        change = self._promotion()
        if change is None:
            return
        version, watch = change["model_version"], change["watch"]
        name = f"{version}@{change['at']}"
        if name != self._seen:
            self._seen, self._before = name, before.get(version, Readings())
            self._is_over = False
        read = self._last.get(version, Readings()).since(self._before)
        reason = self._agreed(name)
        if reason is None and not self._is_over:
            self._is_over = read.total >= watch["readings"]
            reason = _broken_limit(watch, read)
            if reason is not None:
                reason = self._agreed(name, reason)
        if reason is not None:
            self._roll_back(change, reason)

    def _promotion(self) -> Json | None:
        """Return the promotion that is served, if its gate has limits to watch."""
        history = self._registry.history()
        last = history[-1] if history else {}
        is_watched = last.get("action") == "promote" and last.get("watch")
        return last if is_watched and self._registry.current == last["to"] else None

    def _agreed(self, name: str, reason: str | None = None) -> str | None:
        """Return why the promotion has ended, for all replicas; with a reason it ends now."""
        store = self._store
        if store is None:
            return reason
        try:
            return store.end_promotion(name, reason) if reason else store.ended_promotion(name)
        except StoreError:
            return reason  # each replica decides alone while there is no database

    def _roll_back(self, change: Json, reason: str) -> None:
        with file_lock(self._registry.folder / _LOCK):
            # Another replica with the same folder may have done it.
            if self._promotion() == change:
                done = self._registry.rollback({"reason": reason}, by="inkdigits serve")
                logger.error(
                    "the promoted model was rolled back",
                    extra=fields(
                        error=reason,
                        model_version=done["model_version"],
                        former=change["model_version"],
                    ),
                )
        self._reload()
