"""The outbox: results that are due are sent.

Each destination has a thread of its own, so that a dead one holds up none of the others.
"""

from __future__ import annotations

import logging
from threading import Event, Thread

from volseg.errors import DeliveryError
from volseg.serving.config import DestinationConfig, ServerConfig
from volseg.serving.dicom.sender import send
from volseg.serving.processes import Ready
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.deliveries import due_deliveries, note_failure, note_sent

_EVERY_SECONDS = 0.5

logger = logging.getLogger(__name__)


def run_outbox(config: ServerConfig, store: Store, stop: Event, ready: Ready) -> None:
    """Send what is due until `stop` is set."""
    ready(f"results are sent to: {', '.join(config.destinations)}")
    failures: list[BaseException] = []

    def serve(name: str, destination: DestinationConfig) -> None:
        try:
            while not stop.wait(_EVERY_SECONDS):
                send_due(store, name, destination, config.dicom.ae_title)
        except BaseException as error:  # noqa: BLE001  it is raised again below: the process ends, and is started again
            failures.append(error)
            stop.set()

    threads = [Thread(target=serve, args=item, name=item[0]) for item in config.destinations.items()]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join()
    for error in failures:
        raise error


def send_due(store: Store, name: str, destination: DestinationConfig, ae_title: str) -> None:
    """Send what is due to a destination, and note what it answers.

    An object that was sent but not noted, because the process was killed in between, is sent again; it is the same
    object with the same UIDs, so that the destination has it once.
    """
    due = due_deliveries(store, name)
    if not due:
        return
    waiting = {delivery.file: delivery for delivery in due}
    try:
        for file, refusal in send(list(waiting), destination, ae_title):
            delivery = waiting.pop(file)
            if refusal:
                logger.warning("%s: %s", name, refusal)
                note_failure(store, delivery, refusal, destination.attempts, destination.retry_seconds)
            else:
                note_sent(store, delivery)
                note(store, "volseg", "sent", delivery.case_id, name)
    except DeliveryError as error:
        logger.warning("%s: %s; %d results wait", name, error, len(waiting))
        for delivery in waiting.values():
            note_failure(store, delivery, error.explanation, destination.attempts, destination.retry_seconds)
