"""A second model that reads a share of the pictures too, off the requests' path.

It answers nobody. What it reads otherwise than the first is noted in the log, for people to decide.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from inkdigits.decision.prediction import Prediction, Reader
from inkdigits.errors import ConfigError, InkdigitsError
from inkdigits.model.artifact import ARTIFACT_NAME
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.settings import Settings

if TYPE_CHECKING:
    from inkdigits.log.store import Store

MOST_WAITING: Final = 16
"""Pictures that wait for the second model; further ones are left out."""

logger = logging.getLogger(__name__)


def shadow_path(settings: Settings) -> Path:
    """Return the artifact of the second model: a path, or a version beside ``models/current``.

    >>> shadow_path(Settings(shadow="none.onnx"))
    Traceback (most recent call last):
    inkdigits.errors.ConfigError: there is no model 'none.onnx'; name a version or a path
    """
    name = settings.shadow or ""
    folders = [Path("models")]
    if settings.model_path is not None:
        folders.append(settings.model_path.parent)
        folders.append(settings.model_path.parent.parent)
    found = [path for path in (Path(name), *(folder / name for folder in folders)) if path.exists()]
    if not name or not found:
        raise ConfigError(f"there is no model {name!r}; name a version or a path")
    return found[0] / ARTIFACT_NAME if found[0].is_dir() else found[0]


class Shadow:
    """Reads a share of the pictures, 0 to 1, in a thread of its own, which loads the second model.

    The ink chooses, so that the same picture is read again. Without a store differences are only
    counted. It is safe for threads.
    """

    def __init__(
        self, load: Callable[[], Reader], share: float, store: Store | None, metrics: Metrics
    ) -> None:
        self._load, self._share, self._store, self._metrics = load, share, store, metrics
        self._waiting: SimpleQueue[tuple[str, bytes, Prediction]] = SimpleQueue()
        threading.Thread(target=self._run, name="shadow", daemon=True).start()

    def offer(self, record_id: str, picture: bytes, prediction: Prediction) -> None:
        """Have a picture read, if it is in the share and few wait; returns at once."""
        is_chosen = zlib.crc32(prediction.ink.tobytes()) < self._share * 2**32
        if is_chosen and self._waiting.qsize() < MOST_WAITING:
            self._waiting.put((record_id, picture, prediction))

    def _run(self) -> None:
        try:
            reader = self._load()
        except (InkdigitsError, OSError) as error:
            logger.error("a worker is without the second model", extra=fields(error=error))  # noqa: TRY400
            return
        problem = ""
        while True:
            try:
                self._compare(reader, *self._waiting.get())
            except (InkdigitsError, OSError) as error:
                if str(error) != problem:
                    problem = str(error)
                    logger.warning("a second reading failed", extra=fields(error=error))

    def _compare(self, reader: Reader, record_id: str, picture: bytes, first: Prediction) -> None:
        """Read a picture, and note it where the second model reads or decides otherwise."""
        second = reader.predict(picture, risk=first.risk)
        differs = (second.digit, second.decision) != (first.digit, first.decision)
        self._metrics.count("shadow", second.model_version, "differs" if differs else "same")
        if differs and self._store is not None:
            shadow = {
                "model_version": second.model_version,
                "text": None if second.digit is None else str(second.digit),
                "confidence": second.confidence,
                "decision": second.decision,
            }
            self._store.reviews.differ(record_id, shadow)
