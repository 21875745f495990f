"""What training asks of the machine before it starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from test_train import compose

from minia.core.artifact import InputError
from minia.core.setting_types import check
from minia.training.checks import check_cache
from minia.training.settings import Optimisation, TrainSettings


@pytest.mark.parametrize(
    ("changes", "free", "shared", "disk", "told"),
    [
        ([], 10**6, 10**6, 0, None),
        ([], 1, 10**6, 0, "take 0.0 GB, and 0.0 GB of memory are free; allowed here: data.cache=disk, none"),
        ([], 10**6, 400, 0, "in TMP, which data.loader_workers share, are free; allowed here: data.cache=disk, none"),
        (["data.loader_workers=0"], 10**6, 1, 0, None),
        (["data.cache=disk"], 1, 1, 10**9, None),
        (["data.cache=disk"], 10**6, 400, 1, "on the disk of TMP are free; allowed here: data.cache=none"),
        (["data.cache=none", "data.loader_workers=0"], 1, 1, 1, None),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str], free: int, shared: int, disk: int,
    told: str | None,
) -> None:  # fmt: skip
    """Free are so many kB of memory, and bytes in the shared memory or on the disk."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1024 * free))
    monkeypatch.setattr("minia.training.checks._SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=shared * 1024 + disk))
    cached = ("data.cache=memory", "data.loader_workers=2", "data.side=100", "trainer.batch_size=2")
    settings = check(TrainSettings, compose("experiment=smoke", *cached, *changes))
    if told is None:
        check_cache(settings, 20, 5, tmp_path)
        return
    with pytest.raises(InputError, match=r"data\.cache=\w+: 25 images of data.side=100") as error:
        check_cache(settings, 20, 5, tmp_path)
    assert str(error.value).endswith(told.replace("TMP", str(tmp_path)))


def test_batches_that_do_not_fit_the_shared_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minia.training.checks._SHARED_MEMORY", tmp_path)
    given = ("data.cache=none", "data.loader_workers=4", "data.side=100", "trainer.batch_size=10")
    settings = check(TrainSettings, compose("experiment=smoke", *given))
    needed = 4 * 3 * 100 * 100 * 3 * 10  # workers, batches ahead, bytes of a batch
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed))
    check_cache(settings, 20, 5, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(InputError, match=r"data.loader_workers=4: the batches .* allowed here: data.loader_workers=0"):
        check_cache(settings, 20, 5, tmp_path)


def test_an_optimisation_without_more_than_it_needs_is_allowed() -> None:
    least = Optimisation(learning_rate=0.1, max_steps=1, log_every=1)
    assert Optimisation(**least.model_dump()) == least  # pydantic does not look at what is not given
