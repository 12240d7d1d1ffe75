"""A C function compiled by numba, kept for the next start where that can be.

What was kept spares a start some seconds and nothing else. So a file that a crash cut short, a
full disk or a folder that cannot be written must cost those seconds at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from numba import cfunc
from numba.core.caching import FunctionCache
from numba.core.errors import NumbaError

logger = logging.getLogger(__name__)


def compiled(function: Callable[..., None], signature: Any, options: dict[str, Any]) -> Any:
    """As an earlier process kept it, or compiled now. Raises ImportError if numba cannot."""
    try:
        try:
            FunctionCache(function)  # raises where there is no folder for it
            return _kept(function, cfunc(signature, cache=True, **options))
        except (OSError, RuntimeError) as error:  # it can be kept nowhere
            logger.info("%s is not kept: %s", function.__name__, error)
            return cfunc(signature, **options)(function)
    except Exception as error:  # a numba that is not the one we know may raise anything
        raise ImportError(f"numba cannot compile {function.__name__}: {error}") from error


def _kept(function: Callable[..., None], compile_or_load: Callable[..., Any]) -> Any:
    try:
        return compile_or_load(function)
    except (OSError, NumbaError):
        raise
    except Exception:  # unpickling a damaged file raises anything
        logger.warning("%s is compiled anew", function.__name__, exc_info=True)
        FunctionCache(function).flush()  # the index; what it named is written over
        return compile_or_load(function)
