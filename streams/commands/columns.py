"""How the commands that read tables take names of columns."""

import click


def names(options: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in options that take several, each once."""
    return tuple(dict.fromkeys(name.strip() for each in options for name in each.split(",") if name.strip()))


def among(options: tuple[str, ...], fields: tuple[str, ...], option: str, of: str = "--context") -> tuple[str, ...]:
    """Return the names in options that take several; each is to be among the `fields` of the option `of`."""
    found = names(options)
    for name in found:
        if name not in fields:
            raise click.BadParameter(f"{name!r} is not among {of}", param_hint=option)
    return found


def refuse_both(text: tuple[str, ...], number: tuple[str, ...]) -> None:
    """Refuse a column that is to be taken as a text and as a number."""
    for name in names(text):
        if name in names(number):
            raise click.UsageError(f"--text and --number both name {name!r}: choose one")


def split_of(text: str, fields: tuple[str, ...], of: str = "--context") -> tuple[str, str]:
    """Return a column, one of the `fields` of the option `of`, and what separates the members of its lists."""
    name, _, separator = text.partition(":")
    if not separator:
        raise click.BadParameter(f"{text!r}: give it as COLUMN:SEPARATOR, for instance tag:,", param_hint="--split")
    if name not in fields:
        raise click.BadParameter(f"{name!r} is not among {of}", param_hint="--split")
    return name, separator
