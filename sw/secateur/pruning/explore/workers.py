"""Processes that run recipes: a local Dask cluster, or a scheduler that exists."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from secateur.errors import SecateurError
from secateur.text import first_line

#: Deaths of workers after which a run counts as failed.
DEATHS = 3


@contextmanager
def client_of(workers: int, scheduler: str | None) -> Iterator[Any]:
    """A client of Dask's.

    Parameters
    ----------
    workers : processes of a local cluster, if there is no ``scheduler``
    scheduler : address such as ``tcp://host:8786``; its workers must see the same files

    Raises
    ------
    SecateurError : Dask is missing, or there is no scheduler at the address
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise SecateurError(
            "processes need Dask, which is missing; pip install 'secateur[explore]'"
        ) from None
    if scheduler is not None:
        try:
            client = Client(scheduler)
        except (OSError, ValueError) as error:
            raise SecateurError(
                f"{scheduler}: no Dask scheduler: {first_line(error)}; start `dask scheduler` there"
            ) from None
        with client:
            yield client
        return
    settings = {
        "distributed.scheduler.allowed-failures": DEATHS,
        "distributed.admin.system-monitor.gil.enabled": False,
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1",
            dashboard_address=":0", silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        yield client
