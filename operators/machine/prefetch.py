"""Asking for memory before it is needed: rows of large tables lie anywhere, and each one waited for takes as long as
hundreds of operations.
"""

from typing import TYPE_CHECKING

from thalweg.operators.machine.compiled import INTERPRETED

if TYPE_CHECKING or INTERPRETED:
    from thalweg.operators.machine.interpreted import prefetch
else:
    from thalweg.operators.machine.lowered import prefetch

__all__ = ["prefetch"]
