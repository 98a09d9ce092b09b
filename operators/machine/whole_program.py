# mypy: disable-error-code="no-untyped-call, misc"
"""Whole programs: what Python calls is optimised once, together with all that it calls.

numba optimises each function with all its callees inside, makes machine code of it, and does the same again for each
caller: a function ten calls deep goes through that ten times. Here a function that is compiled for a caller stays as it
was written down, without machine code and without a way in from Python. The outermost function links all of them, each
once, and they are optimised as one program. The fold then compiles in a third of the time and half of the memory.

Nothing of IEEE arithmetic depends on it: without fastmath no optimisation changes a result.
"""

import gc
from collections.abc import Iterator
from typing import Any, cast

from numba.core import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from thalweg.operators.machine.progress import Progress

NOT_NEEDED = {
    *("InlineClosureLikes", "InlineInlinables", "InlineOverloads", "WithLift", "LiteralUnroll"),
    *("LiteralPropagationSubPipelinePass", "NopythonRewrites", "AnnotateTypes", "DumpParforDiagnostics"),
}
"""numba's passes over what compiled code here never has: closures, overloads, literal loops, expressions of arrays."""
COLLECTED_AFTER = (200_000, 50, 100)
"""Python's thresholds for collecting garbage while something is compiled."""


class _InnerFunction:
    """The key under which numba finds a function that only compiled code calls, where others have a way in."""


class _Library(JITCodeLibrary):
    """The code of one function; where `is_outermost`, of all that it calls, too."""

    def __init__(self, codegen: Any, name: str, *, is_outermost: bool) -> None:
        super().__init__(codegen, name)
        self._is_outermost = is_outermost

    def finalize(self) -> None:
        """Link and optimise the whole program, or leave an inner function as it is."""
        if not self._is_outermost:
            self._finalize_dynamic_globals()
            self._finalized = True
            return
        self._codegen._check_llvm_bugs()
        for library in self._callees():
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        manager, builder = self._codegen._module_pass_manager()
        with self._recorded_timings.record("Module passes (full optimization)", builder):
            manager.run(self._final_module, builder)
        self._final_module.verify()
        self._finalize_final_module()

    def _callees(self) -> list[Any]:
        """Return the library of each function that is called, directly or not, once, and behind all that call it.

        The linker leaves out a function that nothing linked before it calls. A caller may name one that it never calls.
        """
        order: list[Any] = []
        seen: set[Any] = {self}
        path: list[tuple[Any, Iterator[Any]]] = [(self, iter(self._linking_libraries))]
        while path:
            caller, callees = path[-1]
            callee = next((each for each in callees if each not in seen), None)
            if callee is None:
                order.append(caller)
                path.pop()
            else:
                seen.add(callee)
                is_inner = isinstance(callee, _Library) and not callee._is_outermost
                path.append((callee, iter(callee._linking_libraries if is_inner else ())))
        return order[-2::-1]


class _Compiler(CompilerBase):
    """numba's compiler, with `_Library` for what it makes."""

    def define_pipelines(self) -> list[Any]:
        """Return numba's own pipeline; only what Python calls gets a way in, and machine code."""
        state = self.state
        Progress.functions += 1
        is_outermost = Dispatcher.depth == 1
        state.flags.no_cfunc_wrapper = True
        if not is_outermost:
            state.flags.no_cpython_wrapper = True
            state.flags.no_compile = True
        if state.library is None:
            name = state.func_id.func_qualname if state.func_id is not None else "function"
            state.library = _Library(state.targetctx.codegen(), name, is_outermost=is_outermost)
            state.library.enable_object_caching()
        manager = DefaultPassBuilder.define_nopython_pipeline(state)
        manager.passes = [each for each in manager.passes if each[0].__name__ not in NOT_NEEDED]
        return [manager]


def _plain(kind: Any) -> Any:
    """Return the type of an argument without what is known of a number's value; True and False stay themselves."""
    if isinstance(kind, types.IntEnumMember):
        return kind.dtype
    return types.unliteral(kind) if isinstance(kind, types.IntegerLiteral) else kind


class Dispatcher(CPUDispatcher):
    """A compiled function: inner where compiled code calls it, a whole program where Python does.

    It may be both, and is compiled for each then. Only whole programs are in the cache.
    """

    depth = 0
    """How many functions are being compiled, each for the one before; the compiler's lock guards it."""

    def __init__(self, py_func: Any, locals: Any = None, targetoptions: Any = None) -> None:  # noqa: A002
        """Compile `py_func` when it is first called; the parameters are numba's."""
        super().__init__(py_func, locals, targetoptions, _Compiler)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return numba's template of a call, which compiles the function where it must be.

        A number that is written in the caller, or that an enum names, is an int64 like any other: numba would compile
        the function once more for each.
        """
        return super().get_call_template(tuple(map(_plain, args)), {name: _plain(kind) for name, kind in kws.items()})

    def compile(self, sig: Any) -> Any:
        """Return the way in of the function for a signature, or what stands for it, compiled where it must be."""
        with cast(Any, global_compiler_lock):
            args = tuple(getattr(sig, "args", sig))
            known: Any = self.overloads.get(args)
            if Dispatcher.depth == 0 and known is not None and isinstance(known.entry_point, _InnerFunction):
                del self.overloads[args]
            Dispatcher.depth += 1
            thresholds = gc.get_threshold()
            gc.set_threshold(*COLLECTED_AFTER)  # a compiler makes millions of objects, and few that are garbage
            try:
                return super().compile(sig)
            finally:
                gc.set_threshold(*thresholds)
                Dispatcher.depth -= 1

    def add_overload(self, cres: Any) -> None:
        """Remember a compiled function, for callers only where it has no way in."""
        if cres.entry_point is None:
            inner = _InnerFunction()
            self.targetctx.insert_user_function(inner, cres.fndesc, [cres.library])
            self.overloads[tuple(cres.signature.args)] = cres._replace(entry_point=inner)
        else:
            super().add_overload(cres)
