import errno
import hashlib
import json
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from voxelseg.errors import DataError, VoxelsegError
from voxelseg.files import (
    LOCK_FILE,
    TEMPORARY_PREFIX,
    atomic_path,
    locked,
    read_json,
    read_json_lines,
    remove_file,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_text,
)


def write_half(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        assert temporary.name.endswith(path.name)
        temporary.write_text("half")
        raise error


def test_failed_write_keeps_the_previous_file_and_leaves_nothing_else(tmp_path: Path):
    target = tmp_path / "result.txt"
    write_text(target, "before")
    with pytest.raises(RuntimeError, match="stop"):
        write_half(target, RuntimeError("stop"))
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_interrupt_while_writing_leaves_nothing(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "a.nii.gz", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_missing_parent_folders_are_made(tmp_path: Path):
    write_text(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"


def test_full_disk_is_an_error_with_a_remedy(tmp_path: Path):
    with pytest.raises(VoxelsegError, match=r"result.txt: cannot be written \(No space left on device\)"):
        write_half(tmp_path / "result.txt", OSError(errno.ENOSPC, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_parent_that_is_a_file_and_target_that_is_a_folder_are_errors(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(VoxelsegError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(VoxelsegError, match="Is a directory"):
        write_text(tmp_path / "folder", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_is_removed_if_it_is_there_and_what_cannot_be_removed_is_an_error(tmp_path: Path):
    (tmp_path / "old").touch()
    remove_file(tmp_path / "old")
    remove_file(tmp_path / "old")
    assert not (tmp_path / "old").exists()
    (tmp_path / "folder").mkdir()
    with pytest.raises(VoxelsegError, match=r"folder: cannot be written"):
        remove_file(tmp_path / "folder")


def test_threads_may_write_at_once_and_files_get_the_users_permissions(tmp_path: Path):
    (tmp_path / "plain").write_text("x")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: write_text(tmp_path / "same.txt", str(n) * 1000), range(50)))
    assert (tmp_path / "same.txt").read_text() in {str(n) * 1000 for n in range(50)}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_locked_folder_loses_what_a_killed_process_left(tmp_path: Path):
    (tmp_path / f"{TEMPORARY_PREFIX}1234-a.nii.gz").write_text("half")
    (tmp_path / f"{TEMPORARY_PREFIX}case").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}case" / "image.b2nd").write_text("half")
    (tmp_path / "a.nii.gz").write_text("whole")
    with locked(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"a.nii.gz", LOCK_FILE}


@contextmanager
def another_process_in(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds `folder` until its standard input is closed."""
    script = "import sys; from pathlib import Path; from voxelseg.files import locked\n"
    script += "with locked(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_is_held_by_one_process_until_that_ends_or_is_killed(tmp_path: Path):
    folder = tmp_path / "new"
    with another_process_in(folder) as process:
        (folder / f"{TEMPORARY_PREFIX}1-a.txt").write_text("in work")
        with pytest.raises(VoxelsegError, match="new: another voxelseg process works in this folder"), locked(folder):
            pass
        assert (folder / f"{TEMPORARY_PREFIX}1-a.txt").exists()
        process.kill()
        process.wait()
        with locked(folder):
            assert not (folder / f"{TEMPORARY_PREFIX}1-a.txt").exists()


def test_waiting_for_another_process_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with another_process_in(tmp_path) as process, ThreadPoolExecutor(1) as pool:

        def wait() -> None:
            with locked(tmp_path, wait=True):
                pass

        waiting = pool.submit(wait)
        while not caplog.records:
            time.sleep(0.01)
        assert not waiting.done()
        process.kill()
        waiting.result(timeout=10)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}: waiting for another voxelseg process that works in this folder."
    ]


def test_json_turns_nan_and_infinity_into_null(tmp_path: Path):
    write_json(tmp_path / "a.json", {"dice": [0.5, float("nan")], "hd95": (float("inf"), "x")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"dice": [0.5, None], "hd95": [None, "x"]}


def test_json_breaks_only_what_does_not_fit_in_a_line(tmp_path: Path):
    value = {"patch": [40, 56, 40], "cases": [{"id": "a" * 60, "fold": 0}, {"id": "b" * 60, "fold": 1}], "notes": []}
    write_json(tmp_path / "a.json", value)
    assert (tmp_path / "a.json").read_text().splitlines() == [
        "{",
        '  "patch": [40, 56, 40],',
        '  "cases": [',
        f'    {{"id": "{"a" * 60}", "fold": 0}},',
        f'    {{"id": "{"b" * 60}", "fold": 1}}',
        "  ],",
        '  "notes": []',
        "}",
    ]
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00"], ids=["cut", "empty", "binary"])
def test_damaged_json_is_an_error_that_names_file_and_remedy(tmp_path: Path, content: bytes):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(DataError, match=r"plan.json: not valid JSON .* Run the plan again."):
        read_json(tmp_path / "plan.json", remedy="Run the plan again.")


def test_missing_json_and_folder_in_its_place_are_errors(tmp_path: Path):
    with pytest.raises(DataError, match=r"plan.json: file not found"):
        read_json(tmp_path / "plan.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path)


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_hashes_depend_on_content_alone(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"voxels")
    assert sha256_of_file(tmp_path / "a") == hashlib.sha256(b"voxels").hexdigest()
    assert sha256_of_json({"a": 1, "b": 2}) == sha256_of_json({"b": 2, "a": 1})
    assert sha256_of_json({"a": 1}) != sha256_of_json({"a": 2})


def test_lines_of_json_are_read_without_the_one_that_was_cut_off(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    assert read_json_lines(path) == []
    path.write_text('{"step": 1}\n[2]\n{"step": 3}\n{"ste')
    assert read_json_lines(path) == [{"step": 1}, {"step": 3}]


def test_text_that_utf_8_lacks_is_written_as_its_number(tmp_path):
    write_text(tmp_path / "a.md", "run_\udcff")
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "run_\\udcff"


def test_json_nested_beyond_reading_is_said(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(DataError, match="not valid JSON"):
        read_json(tmp_path / "deep.json")
