"""How far compilation is; apart from the compiler, so that asking loads none."""


class Progress:
    """`functions`: how many were compiled in this process, inner ones included."""

    functions = 0
