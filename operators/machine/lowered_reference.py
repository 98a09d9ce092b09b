# mypy: disable-error-code="no-untyped-call, untyped-decorator, override"
"""A reference to a named tuple as numba sees it: a type with a pointer behind it, and attributes read through that."""

import hashlib
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.extending import intrinsic, lower_getattr_generic, register_model
from numba.core.imputils import impl_ret_borrowed
from numba.core.typing.templates import AttributeTemplate, infer_getattr


class Reference(types.Type):
    """The type of a pointer to a named tuple."""

    def __init__(self, target: Any) -> None:
        """Point to values of the named tuple type `target`."""
        self.target = target
        super().__init__(name=f"Reference({target})")

    @property
    def mangling_args(self) -> tuple[str, tuple[()]]:
        """The type's part of the names of functions: a digest, as the names of a hundred arrays would fill pages."""
        return f"Reference_{hashlib.sha256(self.name.encode()).hexdigest()[:16]}", ()


@register_model(Reference)
class _ReferenceModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Reference) -> None:
        super().__init__(manager, fe_type, ir.PointerType(manager.lookup(fe_type.target).get_value_type()))


@infer_getattr
class _ReferenceAttributes(AttributeTemplate):
    key = Reference

    def generic_resolve(self, reference: Reference, name: str) -> Any:
        if name not in reference.target.fields:
            return None
        member = reference.target.types[reference.target.fields.index(name)]
        return Reference(member) if isinstance(member, types.BaseNamedTuple) else member


@lower_getattr_generic(Reference)
def _lower_attribute(context: Any, builder: Any, reference: Reference, value: Any, name: str) -> Any:
    place = reference.target.fields.index(name)
    member = reference.target.types[place]
    pointer = cgutils.gep_inbounds(builder, value, 0, place)
    if isinstance(member, types.BaseNamedTuple):
        return pointer
    return impl_ret_borrowed(context, builder, member, builder.load(pointer))


def _by_reference(context: Any, target: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return cgutils.alloca_once_value(builder, arguments[0])

    return Reference(target)(target), lower


by_reference = intrinsic(_by_reference)
