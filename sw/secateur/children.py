"""Child processes that end with their parent, and do not take longer than they may."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def bound(seconds: float | None = None) -> Callable[[], None]:
    """A ``preexec_fn``: the child dies when the thread that started it does, even by SIGKILL.

    On Linux; elsewhere a killed parent leaves its children to themselves.

    Parameters
    ----------
    seconds : of processor time, after which SIGXCPU ends the child; None: no limit
    """
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None

    def prepare() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # it has died meanwhile
                os._exit(1)
        if seconds is not None:
            most = resource.getrlimit(resource.RLIMIT_CPU)[1]
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), most))

    return prepare
