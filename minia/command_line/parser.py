"""The parser of command lines whose errors are told in one line, as all others are."""

from __future__ import annotations

import argparse
from typing import NoReturn

from minia.core.artifact import InputError


class Parser(argparse.ArgumentParser):
    """As argparse's, but a wrong word raises ``InputError`` after the program's name, where it has one."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print before it ended the program.

        Raises:
            InputError: always.
        """
        name = f"{self.prog}: " if self.prog else ""
        raise InputError(f"{name}{message}; --help tells what is allowed")
