"""Windows and macOS, as far as they can be told from here: what they lack is taken away, and volseg still answers."""

from __future__ import annotations

import ast
import errno
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from volseg import memory, system
from volseg.errors import ItemOutputError
from volseg.io.disk_errors import output_error
from volseg.io.files import write_text
from volseg.io.itk_paths import writable_path

ROOT = Path(__file__).parents[1]

#: Modules that some systems do not have.
_MODULES = """
_posixsubprocess crypt curses fcntl grp msvcrt nis ossaudiodev posix pty pwd readline resource spwd syslog termios tty
winreg winsound
"""
#: Members of modules that some systems do not have, or where they do something else: `os.kill` ends the process that
#: it asks after on Windows.
_OF_OS = """
O_BINARY O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_SYNC O_TEMPORARY
O_TMPFILE WEXITSTATUS WIFEXITED WIFSIGNALED WNOHANG WTERMSIG chflags chown chroot confstr fchdir fchmod fchown fdatasync
fork forkpty fstatvfs getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getrandom getresuid getsid
getuid getxattr kill killpg lchflags lchmod lchown listxattr lockf major memfd_create minor mkfifo mknod nice openpty
pathconf pipe2 posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev readv register_at_fork removexattr
sched_getaffinity sched_setaffinity sched_yield sendfile setegid seteuid setgid setgroups setpgid setpriority setsid
setuid setxattr splice startfile statvfs sync sysconf tcgetpgrp ttyname uname wait wait3 wait4 waitid writev
"""
_OF_SIGNAL = """
CTRL_BREAK_EVENT CTRL_C_EVENT SIGALRM SIGBREAK SIGBUS SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGPROF SIGQUIT SIGSTOP
SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending
sigtimedwait sigwait sigwaitinfo
"""
MODULES = frozenset(_MODULES.split())
MEMBERS = {
    "os": frozenset(_OF_OS.split()),
    "signal": frozenset(_OF_SIGNAL.split()),
    "time": frozenset(["clock_gettime", "clock_settime", "tzset"]),
    "socket": frozenset(["AF_NETLINK", "AF_UNIX"]),
}
#: Files that only Linux, or only POSIX, has.
FOLDERS = re.compile(r"/(proc|sys|dev|etc|run|var|tmp)(/.*)?", re.DOTALL)
#: Where they may be used: there it is known what to do where they are missing, and tried out below.
GUARDED = {
    "volseg/memory.py": {"/proc/self/clear_refs", "/proc/self/status", "resource"},
    "volseg/system.py": {"/proc", "/proc/cpuinfo", "/sys", "os.posix_fallocate", "os.sched_getaffinity"},
}


def words_of_one_system(tree: ast.Module) -> Iterator[str]:
    """What a module uses that not every system has."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name in MODULES)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from [module] if module in MODULES else []
                yield from (f"{module}.{each.name}" for each in names if each.name in MEMBERS.get(module, ()))
            case ast.Attribute(value=ast.Name(id=module), attr=name) if name in MEMBERS.get(module, ()):
                yield f"{module}.{name}"
            case ast.Constant(value=str(text)) if FOLDERS.fullmatch(text) and id(node) not in docstrings:
                yield text


def test_what_one_system_has_is_used_where_the_others_are_thought_of() -> None:
    found: dict[str, set[str]] = {}
    for path in [*(ROOT / "volseg").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        words = set(words_of_one_system(ast.parse(path.read_text(encoding="utf-8"))))
        found |= {path.relative_to(ROOT).as_posix(): words} if words else {}
    assert found == GUARDED


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import fcntl", ["fcntl"]),
        ("from os import fork, path", ["os.fork"]),
        ("import os\nos.kill(1, 0)", ["os.kill"]),
        ("import signal\nx = signal.SIGKILL", ["signal.SIGKILL"]),
        ("x = '/dev/null'", ["/dev/null"]),
        ('"""/dev/null"""\nimport os\nos.open, "and/dev/or"', []),
    ],
)
def test_each_kind_of_such_a_word_is_seen(code: str, words: list[str]) -> None:
    assert list(words_of_one_system(ast.parse(code))) == words


@pytest.mark.parametrize(("platform", "command"), [("linux", "xdg-open"), ("darwin", "open"), ("win32", "start")])
def test_files_are_opened_by_the_command_of_the_system(
    monkeypatch: pytest.MonkeyPatch, platform: str, command: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert system.file_opener() == command


@pytest.fixture
def without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system that does not show itself as files."""
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(memory, "_RESET", tmp_path / "nowhere" / "clear_refs")


@pytest.mark.usefixtures("without_proc")
@pytest.mark.skipif(sys.platform != "linux", reason="its numbers are compared with those of Linux")
def test_the_peak_is_in_megabytes_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.reset_peak()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert memory.peak_mb() == pytest.approx(peak, rel=0.01)
    monkeypatch.setattr(sys, "platform", "darwin")
    usage = SimpleNamespace(ru_maxrss=300 * 2**20)  # bytes, where Linux counts kilobytes
    monkeypatch.setattr(resource, "getrusage", lambda _: usage)
    assert memory.peak_mb() == 300


@pytest.mark.usefixtures("without_proc")
def test_the_peak_is_known_without_the_module_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # importing it fails
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: SimpleNamespace(peak_wset=200 * 2**20))
    assert memory.peak_mb() == 200


def test_cores_are_counted_without_sched_getaffinity(monkeypatch: pytest.MonkeyPatch) -> None:
    known = system.cores()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    if hasattr(psutil.Process, "cpu_affinity"):  # not on macOS
        assert system.cores() == known
        monkeypatch.delattr(psutil.Process, "cpu_affinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert system.cores() == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert system.cores() == 1


def test_room_on_a_disk_is_looked_for_where_it_cannot_be_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with (tmp_path / "file").open("wb") as file:
        system.take_room(file, tmp_path, 1000)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            system.take_room(file, tmp_path, 10**18)


def test_the_processor_has_a_name_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert system.processor_name() == "arm"


def test_a_process_is_asked_after_and_lives_on() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert system.is_running(process.pid)
    assert process.poll() is None
    process.communicate()
    assert not system.is_running(process.pid)
    assert not system.is_running(10**30)  # as the name of a file may state


def test_windows_flushes_what_may_be_written_and_no_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[tuple[Path, int]] = []
    real = os.open

    def like_windows(path: Path, flags: int, *words: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        opened.append((Path(path), flags))
        return real(path, flags, *words)

    monkeypatch.setattr(os, "open", like_windows)
    monkeypatch.setattr(system, "_ON_WINDOWS", True)
    (tmp_path / "file").write_text("text")
    system.flush(tmp_path / "file")
    system.flush(tmp_path)
    assert opened == [(tmp_path / "file", os.O_RDWR)]


def test_a_file_that_a_viewer_has_open_is_named_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Windows refuses to replace it; on POSIX nobody minds."""
    write_text(tmp_path / "cases.csv", "old")

    def refused(self: Path, target: Path) -> None:
        error = PermissionError(errno.EACCES, "The process cannot access the file", str(self), 32, str(target))
        error.winerror = 32  # type: ignore[attr-defined]  # where there is none, it is one more attribute
        raise error

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(ItemOutputError, match=r"cannot write .*cases\.csv: The process") as refusal:
        write_text(tmp_path / "cases.csv", "new")
    assert refusal.value.hint.startswith("close the program that has it open")
    assert (tmp_path / "cases.csv").read_text() == "old"
    assert output_error(tmp_path, PermissionError(errno.EACCES, "denied")).hint.startswith("it is protected")


def test_itk_needs_no_link_for_a_suffix_in_capitals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Windows lets few users make links."""
    monkeypatch.delattr(Path, "symlink_to")
    with writable_path(tmp_path / "p1.SEG.NRRD") as path:
        assert path.endswith(".seg.nrrd")
        Path(path).write_text("mask")
    assert [each.name for each in tmp_path.iterdir()] == ["p1.SEG.NRRD"]


ON_WINDOWS = """
import builtins, io, os, signal, sys, types
from pathlib import Path
import psutil

MODULES, MEMBERS = {modules!r}, {members!r}

def asked_by_volseg(depth=2):
    return sys._getframe(depth).f_globals.get("__name__", "").partition(".")[0] == "volseg"

missed = set()

class Windows(types.ModuleType):
    def __getattribute__(self, name):
        module = super().__getattribute__("__name__")
        if asked_by_volseg() and name in MEMBERS[module]:
            missed.add(f"{{module}}.{{name}}")
            raise AttributeError(f"module {{module!r}} has no attribute {{name!r}}")
        if asked_by_volseg() and (module, name) == ("os", "name"):
            return "nt"
        return super().__getattribute__(name)

os.__class__ = signal.__class__ = Windows
real_import, real_open, real_read = builtins.__import__, os.open, Path.read_text

def import_(name, *words, **options):
    if name in MODULES and asked_by_volseg():
        missed.add(name)
        raise ModuleNotFoundError(f"No module named {{name!r}}")
    return real_import(name, *words, **options)

def open_(path, *words, **options):
    if asked_by_volseg() and os.path.isdir(path):
        raise PermissionError(13, "Permission denied")
    return real_open(path, *words, **options)

def read_text(self, *words, **options):
    if str(self).startswith(("/proc/", "/sys/")):
        missed.add(str(self))
        raise FileNotFoundError(2, "No such file or directory")
    return real_read(self, *words, **options)

builtins.__import__, os.open, Path.read_text = import_, open_, read_text
Path.symlink_to = None
memory_info = psutil.Process.memory_info
psutil.Process.memory_info = lambda self: types.SimpleNamespace(peak_wset=memory_info(self).rss)
from volseg.cli import main
codes = []
for words in {commands!r}:
    sys.argv = ["volseg", *words]
    try:
        main()
    except SystemExit as end:
        codes.append(end.code)
print(codes, sorted(missed))
"""


def test_inspect_and_predict_do_without_what_windows_lacks(trained_run: Path, dataset: Path, tmp_path: Path) -> None:
    """In a process of its own, where volseg, and nobody else, finds POSIX gone before it is imported."""
    masks = tmp_path / "masks"
    predict = ["predict", str(dataset / "images"), "--model", str(trained_run), "--output", str(masks)]
    commands = [
        ["inspect", str(dataset)],
        [*predict, "--format", "nrrd", "--format", "png", "--probabilities", "--case-id", "hash", "--threads", "1"],
        ["evaluate", str(dataset / "labels"), str(dataset / "labels"), "--output", str(tmp_path / "scores")],
    ]
    code = ON_WINDOWS.format(modules=MODULES, members=MEMBERS, commands=commands)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    told = done.stdout.splitlines()[-1] if done.stdout else ""
    assert told.startswith("[0, 0, 0]"), done.stdout + done.stderr
    missed = {"os.sched_getaffinity", "os.posix_fallocate", "/proc/self/cgroup", "/proc/self/status"}
    assert missed <= set(ast.literal_eval(told.removeprefix("[0, 0, 0] ")))
    assert (
        len(list(masks.glob("*.nrrd"))) == len(list(masks.glob("*.png"))) == len(list(dataset.glob("images/*.nii.gz")))
    )
