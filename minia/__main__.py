"""Where ``minia``, ``mine.py`` and ``train.py`` begin: an interruption is told in one line from the start."""

from __future__ import annotations

import sys
from typing import Literal


def main(program: Literal["mine", "train"] | None = None) -> int:
    """Run the command ``minia``, or one of its programs, with the command line in ``sys.argv``.

    Returns:
        The exit code.
    """
    try:
        from minia.command_line import commands  # takes half a second, in which one may think better of it

        if program is None:
            return commands.main()
        return commands.mine() if program == "mine" else commands.train()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
