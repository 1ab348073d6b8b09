"""Proves webchat_project/secret.py: one key per checkout, whoever asks first."""

import multiprocessing
import stat
from pathlib import Path

import pytest

from webchat_project.secret import secret_key


def test_the_key_is_made_once_and_kept(tmp_path: Path):
    path = tmp_path / "state" / "secret_key"

    key = secret_key(path)

    assert len(key) >= 50
    assert secret_key(path) == key
    assert [file.name for file in path.parent.iterdir()] == ["secret_key"]


def test_only_the_owner_can_read_it(tmp_path: Path):
    path = tmp_path / "state" / "secret_key"

    secret_key(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_two_checkouts_have_different_keys(tmp_path: Path):
    assert secret_key(tmp_path / "one") != secret_key(tmp_path / "two")


def test_a_key_that_was_put_there_is_used(tmp_path: Path):
    (tmp_path / "secret_key").write_text("by hand\n")

    assert secret_key(tmp_path / "secret_key") == "by hand"


def test_a_place_that_cannot_hold_a_file_is_an_error(tmp_path: Path):
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        secret_key(tmp_path / "file" / "secret_key")


def test_processes_that_start_together_share_one_key(tmp_path: Path):
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager:
        start, keys = manager.Barrier(4), manager.list()
        racers = [
            spawn.Process(
                target=_race, args=(start, tmp_path, keys), name=f"racer-{number}", daemon=True
            )
            for number in range(4)
        ]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(timeout=60)

        rounds = list(keys)

    assert len(rounds) == 4
    assert all(keys == rounds[0] for keys in rounds)


def _race(start, folder: Path, keys) -> None:
    """Ask for many keys, each at the same moment as the other processes."""
    mine = []
    for number in range(50):
        start.wait(timeout=60)
        mine.append(secret_key(folder / str(number)))
    keys.append(mine)
