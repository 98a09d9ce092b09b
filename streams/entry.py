"""Where the installed command `thalweg` begins: nothing is loaded before Ctrl-C can end it with one line."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from thalweg.streams.interrupts import interrupt_quietly

        interrupt_quietly()
        from thalweg.streams.commands import main as command

        command()
    except KeyboardInterrupt:
        sys.stderr.write("\nAborted!\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
