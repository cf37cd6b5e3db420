"""The database of studies as a driver uses it for hours: it waits for a database server that is away for a while."""

import logging
import time
from typing import Any

import sqlalchemy as sa
from optuna.storages import BaseStorage, RDBStorage

from fmnist_exp import compat

AWAY_SECONDS = 600  # for which a server may be away
PAUSE_SECONDS = 1.0  # between two attempts to connect

log = logging.getLogger(__name__)


def patient(address: str) -> BaseStorage:
    """Return a storage whose operations wait while the database server is away; a file is always there.

    Connections that a restarted server has ended are made anew before they are used. The first connection must succeed
    at once. An operation that the server ends in its middle still fails, because it may have been done.
    """
    if sa.make_url(address).get_backend_name() == "sqlite":
        return compat.study_storage(RDBStorage(address))
    storage = RDBStorage(address, engine_kwargs={"pool_pre_ping": True})
    sa.event.listen(storage.engine, "do_connect", _connect)
    return compat.study_storage(storage)


def _connect(dialect: sa.Dialect, _record: object, arguments: Any, options: Any) -> Any:
    """Return a connection of the database's driver, as soon as the server is there."""
    until = time.monotonic() + AWAY_SECONDS
    is_known = False
    while True:
        try:
            return dialect.connect(*arguments, **options)
        except dialect.loaded_dbapi.OperationalError as error:
            if time.monotonic() > until:
                raise
            if not is_known:
                is_known = True
                log.warning("the study database does not answer; waiting for it: %s", str(error).splitlines()[0])
            time.sleep(PAUSE_SECONDS)
