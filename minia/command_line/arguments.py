"""The words of a command line: Hydra's flags, and overrides whose values may hold what Hydra's grammar reserves."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException

from minia.command_line.parser import Parser
from minia.core.artifact import InputError

_PATH_KEY = re.compile(
    r"(store|resume|data\.(catalogue|mapping|images)|model\.weights|.*[._](dir|path|path_template|labels|root|model))"
)
_AN_OVERRIDE = re.compile(r"(~[^=]+|(\+\+?|~)?[^=+~][^=]*=.*)", re.DOTALL)
_CHOICES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def _parser() -> argparse.ArgumentParser:
    """Hydra's flags, as its documentation names them; of its own, the version is minIA's."""
    parser = Parser(prog="", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for names in (
        ("--help", "-h"), ("--hydra-help",), ("--version",), ("--resolve",), ("--run", "-r"), ("--multirun", "-m"),
        ("--shell-completion", "-sc"),
    ):  # fmt: skip
        parser.add_argument(*names, action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--info", "-i", const="all", nargs="?", choices=_CHOICES)
    for names in (
        ("--package", "-p"), ("--config-path", "-cp"), ("--config-name", "-cn"), ("--config-dir", "-cd"),
        ("--experimental-rerun",),
    ):  # fmt: skip
        parser.add_argument(*names)
    return parser


class CommandLine:
    """A command line, taken apart.

    Attributes:
        flags: Hydra's flags by their names: ``help``, ``multirun``, ``config_dir`` ...
        overrides: each a ``key=value`` that Hydra's grammar can read.

    Args:
        words: of the command line, without the program's name; flags and overrides in any order.

    Raises:
        InputError: a flag is unknown, or an override is none.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.flags = _parser().parse_intermixed_args(list(words))
        overrides: list[str] = self.flags.overrides
        if not self.flags.shell_completion:
            self.sweeps = self.flags.multirun or "hydra.mode=MULTIRUN" in overrides
            overrides = [_quoted(each, self.sweeps) for each in overrides if each != "experiment=null"]  # the default
            for override in overrides:
                _refuse_unreadable(override)
        self.overrides = overrides

    @property
    def words(self) -> list[str]:
        """The command line as Hydra takes it: flags first."""
        flags = []
        for name, value in vars(self.flags).items():
            if name != "overrides" and value:
                flags += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
        return [*flags, *self.overrides]

    @property
    def runs(self) -> bool:
        """Whether it asks for jobs, not for something to be shown."""
        flags = self.flags
        return not (flags.hydra_help or flags.info or flags.cfg or flags.shell_completion or flags.experimental_rerun)

    @property
    def searches(self) -> bool:
        """Whether a sweeper chooses the values of a sweep's jobs one after another, so that none is known before."""
        named = [each for each in self.overrides if each.partition("=")[0] == "hydra/sweeper"]
        return self.sweeps and any(each.partition("=")[2] != "basic" for each in named)

    def jobs(self) -> Iterator[tuple[str, ...]]:
        """The overrides of each job of a sweep, or of the one job of a run.

        Where the jobs are not known, as many as hold each value once that a job may have; of an interval its ends.
        """
        choices = [_values(each) for each in OverridesParser.create().parse_overrides(self.overrides)]
        if not self.searches:
            return itertools.product(*choices)
        longest = max(map(len, choices))
        return (tuple(each[min(place, len(each) - 1)] for each in choices) for place in range(longest))


def _values(override: Override) -> list[str]:
    """What an override sets in the jobs of a sweep."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if override.is_discrete_sweep():
        return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    interval = override.value()
    assert isinstance(interval, IntervalSweep)
    return [f"{override.get_key_element()}={end}" for end in (interval.start, interval.end)]


def _quoted(override: str, sweeps: bool) -> str:
    """Quote the value of a path, which may hold what Hydra's grammar reserves: ``~ = ' ,`` or any letter."""
    key, equals, value = override.partition("=")
    if not (equals and _PATH_KEY.fullmatch(key.lstrip("+"))):
        return override
    readable = re.fullmatch(r"[\w./:+-]*", value, re.ASCII) or value[:1] in ("'", '"', "[", "$") or value == "???"
    if readable or (sweeps and "," in value):
        return override
    return "{}='{}'".format(key, re.sub(r"(\\*)('|$)", lambda at: 2 * at[1] + (r"\'" if at[2] else ""), value))


def _refuse_unreadable(override: str) -> None:
    if not _AN_OVERRIDE.fullmatch(override):
        raise InputError(f"{override}: expected key=value")
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        key, _, value = override.partition("=")
        raise InputError(
            f"{key}={value}: the value cannot be read; allowed: a number, a word, a list in [], or any text in quotes"
        ) from None
