"""The folder of the sockets between a server's processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os
from server.sockets import VARIABLE, make_folder
make_folder()
print(os.environ[VARIABLE], flush=True)
input()
"""


def start(folder: Path, **env: str) -> tuple[subprocess.Popen[str], Path]:
    """A process that has made its folder, and that."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VLLM_")}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={**kept, "TMPDIR": str(folder), **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("\n")
    assert process.returncode == 0


def test_folder_is_its_users_alone_and_goes_with_the_process(tmp_path: Path) -> None:
    process, folder = start(tmp_path)
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    end(process)
    assert not folder.exists()


def test_next_start_removes_what_killed_servers_left_and_no_more(tmp_path: Path) -> None:
    killed, left = start(tmp_path)
    living, kept = start(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (left / "socket").touch()
    others = tmp_path / "galton-sockets-"
    others.symlink_to(tmp_path, target_is_directory=True)
    third, own = start(tmp_path)
    assert {path for path in tmp_path.iterdir() if path != others} == {kept, own}
    end(living)
    end(third)


def test_folder_that_the_environment_names_stays(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    process, folder = start(tmp_path, VLLM_RPC_BASE_PATH=str(own))
    end(process)
    assert folder == own
    assert [*tmp_path.iterdir()] == [own]
