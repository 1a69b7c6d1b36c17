"""The grader of the assignments: what student code can't do, what is refused, and what
comes out. The hostile submissions of tests/zoo run in `make test` as a stage of its own
(tools/assign.py check); a few of them run here without bubblewrap."""

import csv
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import assign
import numpy as np
import pytest
from conftest import ROOT, notebook
from grading import grade as grading
from grading import box as boxes
from grading import questions as q
from grading import report, seccomp, student, wire
from grading.box import Box, Failed, Limits, Protections, protections

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the grader needs fork")
INNER = ROOT / "assignments" / "02_inner_loop"
SOON = Limits(seconds=3)


@pytest.fixture(scope="module")
def strongest():
    return protections()


@pytest.fixture(scope="module")
def plain():
    return protections(False)


@pytest.fixture
def bubblewrap(strongest):
    if strongest.bubblewrap is None:
        pytest.skip("bubblewrap is not there, or does not work here")
    return strongest


@pytest.fixture
def filtered(strongest):
    if not strongest.filter:
        pytest.skip("no filter of system calls here")
    return strongest


def failing(question, name, *arguments) -> str:
    with pytest.raises(Failed) as e:
        question.call(name, list(arguments))
    return str(e.value)


# ------------------------------------------------------------------------- frames


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2.5,
        float("inf"),
        "a\u00e9\ud800",
        [1, [2, []]],
        {"a": {"1": [None]}},
        {"dict": [["array", 1]], "array": ["float64", [3]]},
    ],
)
def test_values_come_back_as_they_were(value):
    frame = wire.encode(value)
    told, data = wire.sizes(frame[:8])
    assert wire.decode(frame[8 : 8 + told], frame[8 + told :]) == value
    assert len(frame) == 8 + told + data


@pytest.mark.parametrize("dtype", wire.DTYPES)
def test_arrays_come_back_as_they_were(dtype):
    for shape in ((), (0, 3), (2, 1, 4)):
        array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
        frame = wire.encode([array.T, {"x": array}])
        told, _ = wire.sizes(frame[:8])
        first, second = wire.decode(frame[8 : 8 + told], frame[8 + told :])
        for found, wanted in ((first, array.T), (second["x"], array)):
            assert np.array_equal(found, wanted) and type(found) is np.ndarray
            assert found.dtype == array.dtype and found.shape == wanted.shape


def test_numbers_of_numpy_stay_what_they_are():
    "An array of no dimension, and a number of NumPy, have methods that a float lacks."
    told = [np.float64(1.5), np.int32(3), np.array(2.0), True, 1.5, np.bool_(True)]
    frame = wire.encode([*told, np.longdouble(0.25), np.float32(math.inf)])
    size, _ = wire.sizes(frame[:8])
    found = wire.decode(frame[8 : 8 + size], frame[8 + size :])
    assert [type(v) for v in found[:6]] == [type(v) for v in told]
    assert found[:6] == told and found[6] == 0.25 and np.isinf(found[7])
    assert found[2].shape == () and found[0].copy() == 1.5


def test_numbers_in_other_orders_of_bytes():
    torch = pytest.importorskip("torch")
    for array in (np.arange(3.0), np.arange(3), np.arange(3, dtype=np.longdouble)):
        for order in "<>":
            frame = wire.encode(array.astype(array.dtype.newbyteorder(order)))
            size, _ = wire.sizes(frame[:8])
            found = wire.decode(frame[8 : 8 + size], frame[8 + size :])
            assert found.tolist() == [0, 1, 2] and found.dtype.isnative
    view = torch.tensor([1 + 2j]).conj().imag  # a view that only knows it is negative
    assert wire.encode(view) == wire.encode(np.array([-2], dtype="float32"))


def test_no_answer_is_dear_to_decode_or_to_print():
    "What a frame can hold is bounded in memory and time, whatever it is made of."
    import tracemalloc

    bombs = [
        ["a" * 2500] + [""] * 50_000,
        [["b" * 4000]] + [[]] * 50_000,
        [*np.random.rand(8000, 99).astype("float32"), None],
        {str(i): [i] for i in range(40_000)},
        [1, [2, [3, [4, [5] * 50_000]]]],
        "x" * 3_000_000,
        10**4000,
        np.zeros(30_000_000, dtype=bool),
        [np.zeros((0, 1000))] * 1000,
    ]
    tracemalloc.start()
    for bomb in bombs:
        began = time.process_time()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        with pytest.raises(q.Wrong):
            q.numbers(bomb, shape=(2, 3))
        with pytest.raises(q.Wrong):
            q.compare(bomb, {"a": 1}, 0, 0)
        assert len(q.short(bomb)) < 200
        assert tracemalloc.get_traced_memory()[1] - before < 40 << 20
        assert time.process_time() - began < 2
    tracemalloc.stop()
    many = [[]] * (wire.MOST_VALUES + 1)
    with pytest.raises(TypeError, match="too large; return NumPy arrays"):
        wire.encode(many)
    with pytest.raises(wire.BadFrame, match="more than"):
        wire.decode(json.dumps(many).encode(), b"")


def test_what_is_no_answer():
    torch = pytest.importorskip("torch")
    for value in (1j, object(), lambda: 0, b"x", np.array([None]), {(1, 2): 3}):
        with pytest.raises(TypeError, match="can't be an answer|keys of a dict"):
            wire.encode(value)
    tensor = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    assert b"float32" in wire.encode(tensor)
    assert wire.encode({3, 1}) == wire.encode([1, 3]) == wire.encode((1, 3))


def test_no_frame_raises_anything_but_bad_frame():
    "Random changes of a good frame, and some that were thought out."
    rng = np.random.default_rng(0)
    frame = wire.encode({"answer": [np.ones((2, 3)), 5, "x"], "id": "12"})
    bad = [
        b'{"array": ["float64", [4]]}',
        b'{"array": ["float64", [-1]]}',
        b'{"array": ["object", [1]]}',
        b'{"array": ["float64", [1e9]]}',
        b'{"array": ["float64", [9999999999999]]}',
        b'{"array": ["float64", [65536, 65536, 65536, 65536]]}',
        b'{"array": 3}',
        b'{"array": ["float64", [[]]]}',
        b'{"dict": [[1]]}',
        b'{"dict": 7}',
        b'{"dict": [["a", 1, 2]]}',
        b'{"__reduce__": 1}',
        b"[" * 100_000,
        b"[" * 60 + b"]" * 60,
        b"9" * 10_000,
        b"\xff\xfe",
        b"",
    ]
    for _ in range(3000):
        changed = bytearray(frame[8:])
        for at in rng.integers(len(changed), size=rng.integers(1, 6)):
            changed[at] = rng.integers(256)
        bad.append(bytes(changed))
    told = wire.sizes(frame[:8])[0]
    for text in bad:
        try:
            wire.decode(text[:told], text[told:])
        except wire.BadFrame:
            pass
    for text in bad[:16]:
        with pytest.raises(wire.BadFrame):
            wire.decode(text, b"")
    with pytest.raises(wire.BadFrame, match="larger"):
        wire.sizes(wire.HEAD.pack(2**32 - 1, 0))


# ------------------------------------------------------------------------ the box


def test_an_answer_in_time_counts_though_the_grader_looks_late(strongest, monkeypatch):
    send = Box._send

    def late(box, value, deadline):
        send(box, value, deadline)
        if "call" in value:
            time.sleep(2.5)

    code = """
import os, struct, time
def answers(): return 5
def sleeps(): time.sleep(20)
def writes_on():
    for fd in range(3, 64):
        try: os.write(fd, struct.pack("<II", 0, 2**24)); break
        except OSError: pass
    while True: os.write(fd, b"x")
"""
    with Box(Limits(seconds=2), strongest) as box:
        question = box.start([("cell 1", code)])
        monkeypatch.setattr(Box, "_send", late)
        assert question.call("answers", []) == 5
        assert "took longer" in failing(question, "sleeps")
    with Box(Limits(seconds=2), strongest) as box:
        question, began = box.start([("cell 1", code)]), time.monotonic()
        assert failing(question, "writes_on")
        assert time.monotonic() - began < 15


def test_calls_and_their_failures(strongest):
    code = """
import numpy as np, sys
def double(x): return {"twice": 2 * x, "type": type(x).__name__}
def fails(): raise KeyError("no such thing")
def prints(): print("said"); print("warned", file=sys.stderr)
number = 3
"""
    cells = [("cell 1", "x = ("), ("cell 2", code), ("cell 3", "1 / 0")]
    with Box(SOON, strongest) as box:
        question = box.start(cells)
        assert set(question.problems) == {"cell 1", "cell 3"}
        assert "SyntaxError" in question.problems["cell 1"]
        assert "ZeroDivisionError" in question.problems["cell 3"]
        answer = question.call("double", [np.arange(3.0)])
        assert answer["twice"].tolist() == [0, 2, 4] and answer["type"] == "ndarray"
        said = failing(question, "fails")
        assert "KeyError: 'no such thing'" in said and "cell 2, line 4" in said
        assert "no function number" in failing(question, "number")
        assert "cell 1 failed" in failing(question, "nothing")
        question.call("prints", [])
        question.end()
        assert b"said" in box.printed and b"warned" in box.printed
        assert "has ended" in failing(question, "double", 1)


def test_each_question_is_a_new_process(strongest):
    code = (
        "import os\nseen = []\ndef f(): seen.append(1); return len(seen), os.getpid()"
    )
    with Box(SOON, strongest) as box:
        pids = set()
        for _ in range(3):
            question = box.start([("c", code)])
            counts = [question.call("f", []) for _ in range(2)]
            assert [n for n, _ in counts] == [1, 2]
            pids.add(counts[0][1])
            question.end()
        assert len(pids) == 3


def test_nothing_of_the_graders_environment(strongest, monkeypatch):
    monkeypatch.setenv(grading.PRIVATE, "/secret/folder")
    monkeypatch.setenv("TOKEN", "secret")
    with open(ROOT / "settings.ini") as mine:  # an open file of the grader
        code = """
import os, sys
def look():
    files = []
    for fd in range(64):
        try: files.append(str(os.fstat(fd).st_ino))
        except OSError: pass
    return {"env": sorted(os.environ), "argv": sys.argv, "ino": files}
"""
        with Box(SOON, strongest) as box:
            found = box.start([("c", code)]).call("look", [])
        assert str(os.fstat(mine.fileno()).st_ino) not in found["ino"]
    assert "TOKEN" not in found["env"] and grading.PRIVATE not in found["env"]
    assert "secret" not in json.dumps(found)


def test_only_an_empty_folder_can_be_written(bubblewrap):
    code = """
import os
def look(folders):
    written = []
    for folder in folders:
        try:
            open(os.path.join(folder, "x"), "w").close()
            written.append(folder)
        except OSError:
            pass
    return {"here": os.listdir("."), "written": written, "cwd": os.getcwd()}
def see(path): return os.path.exists(path)
def book():
    from metalearn_book.data import files
    return "imported " + files.__file__
def processes(): return [p for p in os.listdir("/proc") if p.isdigit()]
"""
    folders = ["/", "/usr", "/tmp", "/dev", "/book", "/grader", "/proc", str(ROOT)]
    with Box(SOON, bubblewrap) as box:
        question = box.start([("c", code)])
        found = question.call("look", [folders])
        assert found == {"here": [], "written": [], "cwd": "/home"}
        for path in ("assignments", "tests", "settings.ini", "tools/assign.py"):
            assert not question.call("see", [str(ROOT / path)])
        assert question.call("see", ["/book/metalearn_book/__init__.py"])
        assert "imported" in question.call("book", []), "the package is at hand"
        assert len(question.call("processes", [])) < 6


def test_a_box_in_which_private_tests_can_be_seen_is_not_taken(bubblewrap, monkeypatch):
    monkeypatch.setenv(grading.PRIVATE, "/usr/lib")  # in every box, for Python
    found = protections.__wrapped__()
    assert found.bubblewrap is None and "no bubblewrap" in found.missing[0]


def test_system_calls_are_refused(filtered):
    code = """
import ctypes, os, signal, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def fork(): os.fork()
def run(): subprocess.run(["true"])
def execute(): os.execv("/bin/true", ["true"])
def network(): socket.socket(socket.AF_INET)
def local(): socket.socket(socket.AF_UNIX)
def pair(): socket.socketpair()
def kill(): os.kill(os.getppid(), signal.SIGTERM)
def shared():
    if libc.shmget(0, 1 << 20, 0o1600) < 0: raise OSError(ctypes.get_errno(), "shmget")
def memory(): os.memfd_create("x")
def trace():
    if libc.ptrace(16, os.getppid(), 0, 0) < 0: raise OSError(ctypes.get_errno(), "t")
def thread():
    import threading
    found = []
    t = threading.Thread(target=found.append, args=(1,)); t.start(); t.join()
    return found
"""
    with Box(SOON, filtered) as box:
        question = box.start([("c", code)])
        for name in (
            "fork run execute network local pair kill shared memory trace"
        ).split():
            said = failing(question, name)
            assert "PermissionError" in said, said
        assert question.call("thread", []) == [1], "a thread may be made"


def test_system_calls_are_refused_by_what_they_ask(filtered):
    code = """
import ctypes, fcntl, os, resource
libc = ctypes.CDLL(None, use_errno=True)
out, into = os.pipe()
def limits(): resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))
def owner(): fcntl.fcntl(out, 8, os.getppid())
def signal(): fcntl.fcntl(out, 10, 9)
def device(): fcntl.ioctl(out, 0x8901, (0).to_bytes(4, "little"))
def place(): os.sched_setaffinity(os.getppid(), [0])
def outlive():
    if libc.prctl(1, 0, 0, 0, 0): raise OSError(ctypes.get_errno(), "prctl")
def own():
    resource.setrlimit(resource.RLIMIT_CPU, resource.getrlimit(resource.RLIMIT_CPU))
    return fcntl.fcntl(out, fcntl.F_GETFL), libc.prctl(3, 0, 0, 0, 0)
"""
    with Box(SOON, filtered) as box:
        question = box.start([("c", code)])
        for name in "limits owner signal device place outlive".split():
            said = failing(question, name)
            assert "PermissionError" in said, said
        assert question.call("own", [])[1] == 0, "what concerns only itself"


def test_folders_can_be_removed_whatever_is_in_them(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("top", dir_fd=here)
    at = os.open("top", os.O_RDONLY, dir_fd=here)
    for _ in range(1500):  # deeper than recursion, and longer than any path may be
        os.mkdir("inner-folder", dir_fd=at)
        below = os.open("inner-folder", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.symlink("/", "link", dir_fd=at)
    os.close(at)
    os.close(here)
    (tmp_path / "top" / "closed").mkdir(mode=0)
    assert boxes._size(str(tmp_path / "top"), 100)[1] > 100
    boxes._remove(str(tmp_path / "top"))
    assert not (tmp_path / "top").exists()


def test_folders_of_a_killed_grader_are_swept_up(tmp_path, monkeypatch):
    monkeypatch.setattr(boxes.tempfile, "gettempdir", lambda: str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for number in (gone.pid, os.getpid()):
        (tmp_path / f"{boxes.PREFIX}{number}-x" / "d").mkdir(parents=True)
    (tmp_path / f"{boxes.PREFIX}mine").mkdir()
    boxes.sweep()
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == sorted([f"{boxes.PREFIX}{os.getpid()}-x", f"{boxes.PREFIX}mine"])


def test_private_files_where_python_stands_are_covered(bubblewrap, tmp_path):
    "Below /usr or an environment: neither tests, nor submissions, nor results."
    secret = tmp_path / "tests"
    (secret / "02").mkdir(parents=True)
    (secret / "02" / "hidden.py").write_text("secret")
    (tmp_path / "one.ipynb").write_text("secret")
    paths = (str(secret), str(tmp_path / "one.ipynb"))
    code = """
import os
def look(folder, file):
    try: told = open(file).read()
    except OSError: told = ""
    return os.listdir(folder), told
"""
    tmp_path.chmod(0o755)  # what the child's user may read anyhow
    needed = boxes._needed()
    with pytest.MonkeyPatch.context() as change:
        change.setattr(boxes, "_needed", lambda: [*needed, tmp_path])
        shown = boxes.replace(bubblewrap, cover=())
        with Box(SOON, shown) as box:
            found = box.start([("c", code)]).call("look", list(paths))
            assert found == [["02"], "secret"]
        with Box(SOON, boxes.replace(bubblewrap, cover=paths)) as box:
            assert box.start([("c", code)]).call("look", list(paths)) == [[], ""]
        found = protections.__wrapped__(True, paths)
        assert found.bubblewrap is not None and set(paths) <= set(found.cover)


@pytest.mark.parametrize("boxed", [True, False])
def test_a_question_ends_with_a_grader_that_is_killed(boxed):
    "Also while it runs, and without waiting for it."
    code = f"""
import sys, threading; sys.path.insert(0, {str(ROOT / "tools")!r})
from grading.box import *
box = Box(Limits(seconds=60), protections({boxed}))
question = box.start([("1", "import time\\ndef f(): time.sleep(50)")])
threading.Thread(target=lambda: question.call("f", []), daemon=True).start()
time.sleep(0.5)
print(*box._known, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    grader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    there = [int(n) for n in grader.stdout.readline().split()]
    grader.send_signal(signal.SIGKILL)
    grader.wait()
    grader.stdout.close()
    assert len(there) >= 2
    for _ in range(100):
        if all(not os.path.exists(f"/proc/{n}") or _zombie(n) for n in there):
            return
        time.sleep(0.05)
    raise AssertionError("a child lives on")


def test_no_dead_processes_pile_up(strongest):
    def dead():
        table = boxes._table().items()
        return {n for n, p in table if p.parent == os.getpid() and p.state == "Z"}

    code, before = "import os\ndef f(): os._exit(1)", dead()
    for _ in range(3):
        with Box(SOON, strongest) as box:
            failing(box.start([("c", code)]), "f")
    assert not dead() - before


def test_the_filter_is_well_formed():
    "Every jump of the program lands inside it, on every machine that it is made for."
    for machine in seccomp.MACHINES:
        code = seccomp.program(machine)
        assert len(code) % 8 == 0 and len(code) // 8 < 4096
        steps = [code[i : i + 8] for i in range(0, len(code), 8)]
        for i, step in enumerate(steps):
            if step[0] | step[1] << 8 in (0x15, 0x35, 0x45):
                assert i + 1 + max(step[2], step[3]) < len(steps)
        assert steps[-1][:2] == b"\x06\x00"


def test_time_of_a_question_and_of_a_submission(strongest):
    code = "import time\ndef wait(s): time.sleep(s); return s"
    with Box(Limits(seconds=2, total=2.5, patience=0), strongest) as box:
        question = box.start([("c", code)])
        assert question.call("wait", [1.5]) == 1.5
        assert "took longer than 2.5 s" in failing(question, "wait", 1.5)
        assert box.start([("c", code)]).call("wait", [0]) == 0, "the next one has time"
    with Box(Limits(submission=1), strongest) as box:
        box.start([("c", code)]).end()
        time.sleep(1)
        with pytest.raises(Failed, match="no time was left after 1 s"):
            box.start([("c", code)])


def test_a_busy_machine_costs_no_time(strongest, monkeypatch):
    "What a child waits for a processor is made up for, and no more than a few times."
    code = "def spin():\n    while True: pass"
    with Box(Limits(seconds=1, patience=3), strongest) as box:
        box.start([("c", code)])
        waited = [0.0]
        monkeypatch.setattr(Box, "_delay", lambda self: waited[0])
        box._allow(1.0)
        assert not box._starved(), "it has had its share, or waits of its own will"
        waited[0] = 0.5
        assert box._starved() and box._extra == 0.5 and not box._starved()
        waited[0] = 50.0
        assert box._starved() and box._extra == 3.0 and not box._starved()
        assert box._make_up() == 3.0 and box._granted == 3.0
        box._granted = 1000.0
        box._allow(1.0)
        waited[0] = 51.0
        assert not box._starved(), "a submission can't go on for ever"


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="looks there")
def test_what_a_process_waits_for_is_found():
    "Two processes that want one processor wait for each other."
    command = [sys.executable, "-c", "while True: pass"]
    one = min(os.sched_getaffinity(0))
    both = [
        subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, [one]))
        for _ in "ab"
    ]
    try:
        time.sleep(1)
        assert sum(boxes._waited(p.pid) for p in both) > 0.3
    finally:
        for p in both:
            p.kill()
            p.wait()
    assert boxes._waited(2**30) == 0


def test_many_time_limits_make_the_next_ones_short(strongest):
    "Also a function that met one is not waited for as long again."
    code = "import time\ndef a(): time.sleep(9)\nb = c = d = e = a"
    with Box(Limits(seconds=1), strongest) as box:
        for name, allowed in zip("aabd", (1, 0.25, 1, 0.25)):
            said = failing(box.start([("c", code)]), name)
            assert f"{name}(...) took longer than {allowed:g} s" in said


def test_nothing_is_left_running(strongest):
    code = "import time\ndef go():\n    while True: time.sleep(0.01)"
    with Box(Limits(seconds=1), strongest) as box:
        question = box.start([("c", code)])
        child = box._child.pid
        failing(question, "go")
        assert box._child is None
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_child_ends_with_a_grader_that_is_killed():
    code = f"""
import sys, time; sys.path.insert(0, {str(ROOT / "tools")!r})
from grading.box import *
box = Box(Limits(), protections())
box.start([("c", "x = 1")])
print(box._child.pid, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", code]
    grader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child = int(grader.stdout.readline())
    grader.send_signal(signal.SIGKILL)
    grader.wait()
    for _ in range(100):
        if not os.path.exists(f"/proc/{child}") or _zombie(child):
            return
        time.sleep(0.05)
    raise AssertionError("the child lives on")


def _zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_without_bubblewrap_the_report_says_what_is_missing(plain):
    assert plain.bubblewrap is None and "no bubblewrap" in plain.missing[0]
    assert Protections(None, True, True).missing == ()


@pytest.mark.parametrize(
    "name",
    ["endless_loop", "exits_hard", "prints_a_result", "returns_nan", "deep_answer"],
)
def test_hostile_submissions_without_bubblewrap(plain, name):
    expected, a = assign.zoo()[name], grading.load(INNER)
    limits = {"seconds": 2.0, **expected.get("limits", {})}
    path = assign.ZOO / f"{name}.ipynb"
    result = grading.grade(a, path, plain, full=False, limits=limits)
    assert assign.deserved(result, expected) == ""
    assert any("no bubblewrap" in w for w in result.warnings)


def test_the_zoo_is_complete():
    there = {p.stem for p in assign.ZOO.iterdir()} - {"expected"}
    assert there == set(assign.zoo()) and len(there) >= 25


# -------------------------------------------------------------------- comparison


def wrong(got, want, **how) -> str:
    with pytest.raises(q.Wrong) as e:
        q.compare(got, want, **{"rtol": 1e-4, "atol": 1e-6, **how})
    return str(e.value)


def test_right_answers_in_other_forms():
    want = np.array([[1.0, 2.0], [3.0, 4.0]])
    for got in (
        want.tolist(),
        want.astype("float32"),
        want.astype(int),
        [want[0], want[1].tolist()],
        want + 1e-5,
    ):
        q.compare(got, want, 1e-4, 1e-6)
    q.compare(np.float32(2), 2.0, 1e-4, 0)
    q.compare(np.array(3), 3, 0, 0)
    q.compare({"a": [1], "b": "x"}, {"a": [1.0], "b": "x"}, 0, 0)
    q.compare(np.array([[1, 2], [3, 4]]), [np.array([1, 2]), [3, 4]], 0, 0)
    q.compare([], [], 0, 0)


def test_wrong_answers():
    want = np.array([1.0, 2.0])
    assert "shape (2,), got (2, 1)" in wrong([[1.0], [2.0]], want)
    assert "shape (2,), got (3,)" in wrong([1, 2, 3], want)
    assert "not finite" in wrong([1.0, math.nan], want)
    assert "not finite" in wrong([1.0, math.inf], want)
    for got in (None, "1", ["1", "2"], [1, None], [[1], 2], {"a": 1}, [10**400, 1]):
        assert "must be numbers" in wrong(got, want)
    assert "expected 5, got 4" in wrong(4, 5)
    assert "keys ['a'], got ['b']" in wrong({"b": 1}, {"a": 1})
    assert "list of 2" in wrong([1], [1, 2])
    assert "the answer['a'][1]" in wrong({"a": [1, 3]}, {"a": [1, 2]})
    assert "expected 'x', got 'y'" in wrong("y", "x")
    assert "expected None" in wrong(0.0, None)
    assert wrong(1.0, "x") and wrong(True, "x")
    with pytest.raises(q.Wrong, match="whole numbers"):
        q.numbers([1.5], whole=True)
    assert q.numbers([1.0, 2.0], whole=True).dtype == np.int64


def test_an_array_is_compared_with_its_own_size():
    "The tolerance of one array is not that of another."
    want = {"large": np.array([1e6, 0.0]), "small": np.array([1e-3])}
    q.compare({"large": [1e6 + 50, 50.0], "small": [1e-3]}, want, 1e-4, 0)
    assert "['small']" in wrong({"large": [1e6, 0], "small": [2e-3]}, want, atol=0)


# ----------------------------------------------------------------------- notebooks


def test_solutions_are_taken_out():
    code = "#| graded\ndef f(x):\n    ### BEGIN SOLUTION\n    y = x\n    return y\n"
    code += "    ### END SOLUTION\n\n\nprint(f)"
    left = student.stripped(code)
    assert "y = x" not in left and "    raise NotImplementedError(" in left
    assert left.endswith("print(f)") and "SOLUTION" not in left
    compile(left, "x", "exec")
    for broken in ("### BEGIN SOLUTION\nx = 1", "x = 1\n### END SOLUTION"):
        with pytest.raises(ValueError, match="no partner"):
            student.stripped(broken)


def test_the_students_notebook():
    nb = notebook(
        "# Title",
        "BADGES",
        "#| graded\nx = 1",
        "#| instructor\nsecret = 2",
        "Why?\n<!-- BEGIN SOLUTION -->\nbecause\n<!-- END SOLUTION -->",
    )
    cfg = {"url": "https://github.com/a/b", "version": "1.2.3"}
    made = student.student_notebook(nb, "07_x", cfg)
    told = json.dumps(made)
    assert "secret" not in told and "because" not in told
    assert "Your answer goes here" in told
    assert "colab.research.google.com/github/a/b/blob/v1.2.3/assignments/07_x" in told
    assert made["metadata"]["assignment"] == "07_x"
    assert "because" in json.dumps(nb), "the instructor's notebook stays as it is"


def test_only_marked_cells_are_graded():
    nb = notebook(
        "#| graded\na = 1", "#| check a\nassert a", ">>> training", "#| graded \nb = 2"
    )
    assert student.cells_of(nb) == [
        ("cell 1", "#| graded\na = 1"),
        ("cell 4", "#| graded \nb = 2"),
    ]


def test_every_assignment_says_what_it_is():
    for folder in student.assignments():
        text = "\n".join(
            map(student.source, student.read(folder / "solution.ipynb")["cells"])
        )
        for words in (
            "**You will be able to**",
            "**Chapters needed:**",
            "**Time:**",
            "**Points:**",
        ):
            assert words in text, f"{folder.name}: {words}"
        a = grading.load(folder)
        assert f"{a.points:g}" in text.split("**Points:**")[1][:40]
        adapters = (folder / "adapters.py").read_text()
        for question in a.questions:
            assert f"({question.points:g} point" in text, question.name
            for name in question.functions:
                assert f"def {name}(" in text
                assert re.search(rf" as {name}$", adapters, re.M)
        n = text.count("<summary>Hint")
        assert n >= 5, f"{folder.name} has {n} hints"
        for link in student.re.findall(r"\]\((\.\./[^)#]+)", text):
            assert (folder / link).exists(), link


@pytest.fixture(scope="module")
def references(strongest):
    with assign.References(strongest) as found:
        yield found


@pytest.mark.parametrize("folder", student.assignments(), ids=lambda p: p.name)
def test_an_adapter_names_the_functions_of_own_files(folder, tmp_path, references):
    "The solution in a file of its own, under other names; only adapters.py knows them."
    adapters = (folder / "adapters.py").read_text()
    named = re.findall(r"^# from my_code import (my_\w+) as (\w+)$", adapters, re.M)
    cells = student.cells_of(student.read(folder / "solution.ipynb"))
    code = "\n\n".join(c for _, c in cells)
    for own, name in named:
        code, n = re.subn(rf"^def {name}\(", f"def {own}(", code, flags=re.M)
        assert n == 1, name
    code += "\n\n" + "\n".join(f"{name} = {own}" for own, name in named)
    (tmp_path / "my_code.py").write_text(code)
    used = re.sub(r"^# (from my_code)", r"\1", adapters, flags=re.M)
    (tmp_path / "adapters.py").write_text(used)
    a = grading.load(folder)
    args = dict(seed=references.seed, full=False)
    with references(a) as reference, references.honest(a) as box:
        args |= dict(reference=reference, box=box)
        told = grading.grade(a, tmp_path, references.protected, **args)
        assert told.points == told.of, [m.message for m in told.marks if not m.points]
        # as it comes, beside a notebook, it changes nothing
        (tmp_path / "adapters.py").write_text(adapters)
        (tmp_path / "my_code.py").unlink()
        book = (folder / "solution.ipynb").read_text()
        (tmp_path / "mine.ipynb").write_text(book)
        last = student.submission(tmp_path)
        assert last.cells == [*cells, ("adapters.py", adapters)]
        question = box.start(last.cells, last.files)
        question.end()
        assert not question.problems


def test_references_are_shared_and_those_that_failed_are_not(strongest):
    a = grading.load(INNER)
    with assign.References(strongest) as found:
        with found(a) as one:
            with found(a) as other:
                assert other is not one and other.known is one.known
        with found(a) as again:
            assert again is one
        with pytest.raises(KeyError), found(a) as broken:
            raise KeyError
        with found(a) as third, found(a) as fourth:
            assert broken not in (third, fourth)
        with found.honest(a) as box:
            box._slow, box._began = 3, 1.0
        with found.honest(a) as same:
            assert same is box and box._slow == 0 == box._began


def test_times_in_headers_are_stored_numbers(tmp_path):
    for folder in student.assignments():
        book = (folder / "solution.ipynb").read_text()
        if "RUNTIME" in book:
            assert student.runtime(folder.name) in (folder / "student.ipynb").read_text(
                encoding="utf-8"
            )
    stored = ROOT / "results" / f"{student.TIMES}.json"
    for name, took in json.loads(stored.read_text())["book"]["numbers"].items():
        assert student.find(name).name == name
        assert took["processor"] < 900, "allowed are 15 minutes on two cores"
    told = {"numbers": {"01_x": {"processor": 99.2}, "02_y": {"processor": 250}}}
    path = tmp_path / "results" / f"{student.TIMES}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"book": {**told, "device": "2 cores"}}))
    assert student.runtime("01_x", tmp_path) == "100 s of processor time (2 cores)"
    assert student.runtime("02_y", tmp_path).startswith("4 minutes of")
    with pytest.raises(ValueError, match="--assignments 03_z --store"):
        student.runtime("03_z", tmp_path)


def test_points_and_numbers_rise():
    points = [grading.load(f).points for f in student.assignments()]
    assert points == sorted(points)


# --------------------------------------------------------------------- submissions


def test_forms_of_a_submission(tmp_path):
    (tmp_path / "a.py").write_text("def f(): return 1")
    (tmp_path / "adapters.py").write_text("from a import f as g")
    found = student.submission(tmp_path)
    assert [c[0] for c in found.cells] == ["adapters.py"] and set(found.files) == {
        "a.py",
        "adapters.py",
    }
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook("#| graded\nx = 1")))
    assert [c[0] for c in student.submission(tmp_path).cells] == [
        "cell 1",
        "adapters.py",
    ]
    (tmp_path / "m.ipynb").write_text("{}")
    with pytest.raises(ValueError, match="2 notebooks"):
        student.submission(tmp_path)


def test_submissions_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="there is no"):
        student.submission(tmp_path / "nothing.ipynb")
    with pytest.raises(ValueError, match="0 notebooks"):
        student.submission(tmp_path)
    path = tmp_path / "x.ipynb"
    for text in ("", "[", "[" * 50_000, '{"cells": 3, "metadata": {}}', '"x"'):
        path.write_text(text)
        with pytest.raises(ValueError, match="can't be read"):
            student.submission(path)
    path.write_text(json.dumps(notebook("#| graded\n" + "x = 1\n" * 300_000)))
    with pytest.raises(ValueError, match="1 MB of code"):
        student.submission(path)
    path.write_text(json.dumps(notebook(*["#| graded\nx"] * 1001)))
    with pytest.raises(ValueError, match="1000 graded cells"):
        student.submission(path)
    path.unlink()
    (tmp_path / "adapters.py").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="0 notebooks"):
        student.submission(tmp_path)


def test_which_assignment():
    assert student.find("2").name == student.find("inner_loop").name == INNER.name
    with pytest.raises(ValueError, match="there are: 01_episodes"):
        student.find("99")


def test_hidden_tests_of_a_private_fork(tmp_path, monkeypatch):
    mine = tmp_path / INNER.name
    mine.mkdir()
    monkeypatch.setenv(grading.PRIVATE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"has no 02_inner_loop/hidden\.py"):
        grading.load(INNER)
    (mine / "hidden.py").write_text(
        "from grading import questions as q\n"
        "@q.question('loss', 7)\ndef only(ask, rng):\n    ask('loss')\n"
    )
    a = grading.load(INNER)
    assert a.points == 7 and a.hidden == mine / "hidden.py"
    (mine / "hidden.py").write_text("x = 1")
    with pytest.raises(ValueError, match="no questions"):
        grading.load(INNER)


# --------------------------------------------------------------------- questions


def small(tmp_path, hidden: str, solution: str) -> grading.Assignment:
    folder = tmp_path / "09_small"
    folder.mkdir(exist_ok=True)
    (folder / "hidden.py").write_text("from grading import questions as q\n" + hidden)
    nb = notebook("#| graded\n" + solution)
    (folder / "solution.ipynb").write_text(json.dumps(nb))
    return grading.load(folder)


def submitted(tmp_path, code: str):
    path = tmp_path / "s.ipynb"
    path.write_text(json.dumps(notebook("#| graded\n" + code)))
    return path


TWO = """
@q.question("f", 1)
def f(ask, rng): ask.same("f", int(rng.integers(100)))
@q.question("g", 2, needs=("f",))
def g(ask, rng): ask.same("g", int(rng.integers(100)))
"""


def test_an_earlier_fault_costs_no_later_question(tmp_path, strongest):
    a = small(tmp_path, TWO, "def f(x): return x + 1\ndef g(x): return f(x) * 2")
    for first in ("def f(x): return x", "def f(x): raise ValueError", ""):
        path = submitted(tmp_path, f"{first}\ndef g(x): return f(x) * 2")
        result = grading.grade(a, path, strongest)
        assert [m.points for m in result.marks] == [0, 2], result.marks
        assert "correct versions of f" in result.marks[1].message
    by_name = "return {h.__name__: h(x) for h in [f]}['f'] * 2"
    path = submitted(tmp_path, f"def f(x): return 0\ndef g(x): {by_name}")
    assert [m.points for m in grading.grade(a, path, strongest).marks] == [0, 2]
    path = submitted(tmp_path, "def g(x): return f(f=x)\ndef f(x): return x + 1")
    assert grading.grade(a, path, strongest).points == 1
    for own in ("def f(x): return 0", "def f(y, z=3): return 0", "f = None"):
        name = "y" if "y" in own else "x"
        path = submitted(tmp_path, f"{own}\ndef g(x): return f({name}=x) * 2")
        assert [m.points for m in grading.grade(a, path, strongest).marks] == [0, 2]


def test_functions_are_lent_to_own_modules_too(tmp_path, strongest):
    a = small(tmp_path, TWO, "def f(x): return x + 1\ndef g(x): return f(x) * 2")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "adapters.py").write_text("from b import g\nfrom a import first as f\n")
    (mine / "b.py").write_text(
        "import a\nfrom a import first as other\n"
        "def g(x): return a.first(x) + other(x=x)\n"
    )
    (mine / "a.py").write_bytes("\ufeffdef first(x): return 0\n".encode())
    result = grading.grade(a, mine, strongest)
    assert [m.points for m in result.marks] == [0, 2], result.marks


def test_a_slow_function_is_waited_for_once(tmp_path, strongest):
    a = small(tmp_path, TWO, "def f(x): return x + 1\ndef g(x): return f(x) * 2")
    code = "def f(x):\n    while True: pass\ndef g(x): return f(x) * 2"
    began = time.monotonic()
    path = submitted(tmp_path, code)
    result = grading.grade(a, path, strongest, limits={"seconds": 4.0, "patience": 0})
    assert [m.points for m in result.marks] == [0, 2], result.marks
    assert "f took too long in an earlier question" in result.marks[1].message
    assert time.monotonic() - began < 20


def test_to_wait_for_what_is_lent_costs_no_time(strongest):
    def lend(arguments, named):
        time.sleep(0.8)
        return named["x"]

    code = "def g():\n    return f(x=1) + f(x=2)"
    with Box(Limits(seconds=1, total=2, patience=0), strongest) as box:
        question = box.start([("c", code)], lend={"f": lend})
        assert question.call("g", []) == 3 and question.call("g", []) == 3
        assert "for 3 s; allowed are" in failing(question, "g")


def test_what_is_lent_is_only_what_is_needed(tmp_path, strongest):
    "g may ask for f, but f may not ask for itself, and g not for g."
    a = small(tmp_path, TWO, "def f(x): return x + 1\ndef g(x): return f(x) * 2")
    forged = """
import sys
def f(x):
    pipe = next(o for o in __import__("gc").get_objects() if type(o).__name__ == "Pipe")
    pipe.send({"borrow": NAME, "arguments": [x], "named": {}})
    told = pipe.receive()
    if "refused" in told: raise ValueError(told["refused"])
    return told["lent"]
g = f
"""
    path = submitted(tmp_path, forged.replace("NAME", "'f'"))
    result = grading.grade(a, path, strongest)
    assert result.points == 0 and "ValueError" in result.marks[0].message
    path = submitted(tmp_path, forged.replace("NAME", "'g'"))
    assert grading.grade(a, path, strongest).points == 0


def test_a_test_that_calls_nothing_is_a_mistake_of_the_assignment(tmp_path, strongest):
    a = small(tmp_path, '@q.question("f", 1)\ndef f(ask, rng): pass', "def f(): pass")
    with pytest.raises(RuntimeError, match="calls nothing"):
        grading.grade(a, submitted(tmp_path, "def f(): pass"), strongest)


def test_a_solution_that_fails_is_a_mistake_of_the_assignment(tmp_path, strongest):
    hidden = '@q.question("f", 1)\ndef f(ask, rng): ask.same("f")'
    a = small(tmp_path, hidden, "def f(): raise ValueError")
    with pytest.raises(RuntimeError, match="reference solution fails"):
        grading.grade(a, submitted(tmp_path, "def f(): return 1"), strongest)


def test_a_reference_serves_longer_than_a_question(tmp_path, strongest, monkeypatch):
    "Through a whole class, and also after student arguments have broken it."
    brief = Limits(seconds=3, total=1, submission=1)
    monkeypatch.setattr(grading, "NUMPY", brief)
    code = "import os\ndef f(x):\n    if x < 0: os._exit(1)\n    return x + 1"
    a = small(tmp_path, '@q.question("f", 1)\ndef f(ask, rng): ask.same("f", 1)', code)
    reference = grading.Reference(a, strongest)
    try:
        assert reference("f", [1]) == 2
        time.sleep(1.2)
        assert reference("f", [2]) == 3
        with pytest.raises(Failed, match="ended the process"):
            reference.lend("f", 2.0, [-1])
        assert reference.lend("f", 2.0, [3]) == 4 and reference("f", [4]) == 5
        with pytest.raises(grading.Unfit):
            reference("f", [-1])
        assert reference("f", [5]) == 6
        os.kill(reference.box._child.pid, signal.SIGKILL)  # as by a lack of memory
        assert reference("f", [6]) == 7 and reference.lend("f", 2.0, [7]) == 8
        os.kill(reference.box._child.pid, signal.SIGKILL)
        assert reference.lend("f", 2.0, [], {"x": 1}) == 2
    finally:
        reference.close()


def test_an_answer_that_the_test_does_not_expect(tmp_path, strongest):
    hidden = '@q.question("f", 1)\ndef f(ask, rng): q.require(ask("f") > 1, "small")'
    a = small(tmp_path, hidden, "def f(): return 2")
    result = grading.grade(a, submitted(tmp_path, "def f(): return 'x'"), strongest)
    assert result.points == 0 and "can't be judged" in result.marks[0].message


def test_errors_that_are_asked_for(tmp_path, strongest):
    hidden = '@q.question("f", 1)\ndef f(ask, rng): ask.refuses("f", 1)'
    a = small(tmp_path, hidden, "def f(x): raise ValueError")
    for code, points in (
        ("def f(x): raise ValueError('x')", 1),
        ("def f(x): raise TypeError('x')", 0),
        ("class E(ValueError): pass\ndef f(x): raise E", 1),
        ("class ValueErrorX(Exception): pass\ndef f(x): raise ValueErrorX", 0),
        ("def f(x): raise KeyError('raised ValueError')", 0),
        ("import json\ndef f(x): json.loads('[')", 1),
        ("def f(x): return 'raised ValueError'", 0),
    ):
        result = grading.grade(a, submitted(tmp_path, code), strongest)
        assert result.points == points, (code, result.marks)


def test_inputs_are_new_for_every_grading_and_the_same_for_one_seed(
    tmp_path, strongest
):
    hidden = '@q.question("f", 1)\ndef f(ask, rng): ask.same("f", rng.random())'
    a = small(tmp_path, hidden, "def f(x): return 0")
    path = submitted(tmp_path, "def f(x): raise ValueError(repr(x))")
    said = [
        grading.grade(a, path, strongest, seed=seed).marks[0].message
        for seed in (None, None, 3, 3)
    ]
    assert len(set(said)) == 3 and said[2] == said[3]


def waves(n_tasks, k_shot, n_query, seed, kind="right"):
    "Tasks of assignment 3, right or with draws that depend on each other."
    rng, tasks = np.random.default_rng(seed), []
    for _ in range(n_tasks):
        u, v = rng.random(2)
        v = {"one number": u, "twice": 2 * u % 1, "falls": 1 - u}.get(kind, v)
        u = u**0.6 if kind == "not uniform" else u
        x = [rng.uniform(-5, 5, size=(n, 1)) for n in (k_shot, n_query)]
        if kind == "contained":
            n = min(k_shot, n_query)
            x[1][:n] = x[0][:n]
        wave = [(0.1 + 4.9 * u) * np.sin(x - np.pi * v) for x in x]
        tasks.append([x[0], wave[0], x[1], wave[1]])
    return tasks


def test_draws_of_waves_that_depend_on_each_other():
    a = grading.load(ROOT / "assignments" / "03_maml")
    hidden = next(x for x in a.questions if x.name == "sinusoid_tasks").test
    for seed in range(8):
        for kind, told in (
            ("right", ""),
            ("one number", "independently"),
            ("twice", "independently"),
            ("falls", "independently"),
            ("contained", "support and in the query"),
            ("not uniform", "amplitudes should be uniform"),
        ):
            student = lambda _, request, kind=kind: waves(*request, kind)
            full, said = kind == "not uniform", ""  # which needs more tasks
            try:
                hidden(q.Ask(student, None, full), np.random.default_rng(seed))
            except q.Wrong as e:
                said = str(e)
            assert told in said and bool(told) == bool(said), (kind, said)


# ------------------------------------------------------------------------ results


def result(**change) -> grading.Result:
    marks = [
        grading.Mark("f", "1. F", 2.0, 2.0, "right"),
        grading.Mark("g", "2. G", 0.0, 3.0, "<script>x</script>\x1b[31m", "=1+1"),
    ]
    return grading.Result("09_small", marks, **change)


def test_gradescope():
    told = report.gradescope(
        result(warnings=["no bubblewrap"], cells={"cell 1": "Bad"})
    )
    assert told["score"] == 2 and told["max_score"] == 5
    assert [t["status"] for t in told["tests"]] == ["passed", "failed"]
    assert {t["visibility"] for t in told["tests"]} == {"visible"}
    assert "no bubblewrap" in told["output"] and "cell 1: Bad" in told["output"]
    assert "seed" not in json.dumps(told)
    json.dumps(told, allow_nan=False)


def test_the_page_is_harmless():
    page = report.page("<b>me", result(warnings=["<i>"]))
    for bad in ("<script>", "<b>me", "<i>", "\x1b"):
        assert bad not in page
    assert "&lt;script&gt;" in page and "2 of 5 points" in page
    assert "default-src 'none'" in page
    many = {f"cell {i}": "<" * 700 for i in range(1000)}
    page = report.page("x", result(cells=many))
    assert "and 970 other cells" in page and len(page) < 200_000


def test_the_table_is_harmless():
    row = report.csv_row("=HYPERLINK(1)", result(seed=5, warnings=["@x", "y\nz"]))
    table = list(csv.reader(io.StringIO(report.csv_table([row, {"submission": "-2"}]))))
    assert table[0][-2:] == ["f", "g"] and table[1][-2:] == ["2", "0"]
    assert table[1][0] == "'=HYPERLINK(1)" and table[1][6] == "'@x; y z"
    assert table[2][0] == "-2" and "" in table[2]
    for text, told in (
        ("x;=cmd|' /c'!A0", "x;'=cmd|' /c'!A0"),
        ("\uff1d1+1", "'\uff1d1+1"),
        (" =1", "' =1"),
        ("a,@b", "a,'@b"),
        ("-2.5", "-2.5"),
    ):
        assert report._cell(text) == told
    assert "\u202e" not in report.clean("a\u202eb\u2066c")
    assert (
        report.clean("a\ud800\x00b") == "a??b" and len(report.clean("x" * 9999)) < 2000
    )


def test_what_is_found_in_a_folder(tmp_path):
    for name in ("b.ipynb", "a.ipynb", ".hidden.ipynb", "_x.ipynb", "notes.txt"):
        (tmp_path / name).write_text("{}")
    for name in ("c", "figures", "a", "h.ipynb", "grades.csv"):
        (tmp_path / name).mkdir()
    for name in ("c", "a", "h.ipynb"):
        (tmp_path / name / "code.py").write_text("")
    found = assign.submissions(tmp_path)
    assert sorted(found) == ["a", "a.ipynb", "b", "c", "h.ipynb"]
    assert found["a.ipynb"].is_file() and found["a"].is_dir()
    assert list(assign.submissions(tmp_path / "a.ipynb")) == ["a"]
    with pytest.raises(ValueError, match="holds no notebook"):
        assign.submissions(tmp_path / "figures")


def test_a_notebook_with_figures_beside_it_is_one_submission(tmp_path, monkeypatch):
    (tmp_path / "ann.ipynb").write_text("{}")
    (tmp_path / "figures").mkdir()
    assert assign.submissions(tmp_path) == {"ann": tmp_path}
    (tmp_path / "ann.ipynb").rename(tmp_path / "student.ipynb")
    monkeypatch.chdir(tmp_path)
    assert list(assign.submissions(assign.Path("."))) == [tmp_path.name]


def test_links_and_special_files_are_no_submissions(tmp_path, capsys):
    (tmp_path / "ann.ipynb").write_text(json.dumps(notebook("#| graded\nx = 1")))
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "x.ipynb").symlink_to(tmp_path / "ann.ipynb")
    (tmp_path / "eve.ipynb").symlink_to(tmp_path / "ann.ipynb")
    (tmp_path / "mal").symlink_to(tmp_path / "bob")
    os.mkfifo(tmp_path / "pipe.ipynb")
    assert list(assign.submissions(tmp_path)) == ["ann", "bob"]
    assert capsys.readouterr().err.count("is a link") == 2
    for name in ("eve.ipynb", "pipe.ipynb"):
        with pytest.raises(ValueError, match="no plain file"):
            student.submission(tmp_path / name)
    with pytest.raises(ValueError, match="no plain file"):
        student.content(tmp_path / "pipe.ipynb")
    with pytest.raises(ValueError, match="0 notebooks"):
        student.submission(tmp_path / "bob")


@pytest.fixture
def class_of(tmp_path, monkeypatch):
    "A small assignment and three submissions; grade them with `go()`."
    a = small(tmp_path, TWO, "def f(x): return x + 1\ndef g(x): return f(x) * 2")
    monkeypatch.setattr(student, "FOLDER", tmp_path)
    monkeypatch.setattr(assign, "find", lambda name: a.folder)
    there = tmp_path / "in"
    there.mkdir()
    for i, code in enumerate(("def f(x): return x + 1", "def f(x): return x", "1/0")):
        submitted(there, code).rename(there / f"s{i}.ipynb")
    (there / "s3.ipynb").write_text("no notebook")
    out = tmp_path / "out"

    def go():
        return assign.grade_all(there, "09", out, 2, "smoke", True)

    return there, out, go


def test_a_class_is_graded(class_of, capsys):
    there, out, go = class_of
    assert go() == 0
    points = [
        json.loads((out / "09_small" / f"s{i}" / "results.json").read_text())
        for i in range(4)
    ]
    assert [p["score"] for p in points] == [1, 0, 0, 0]
    assert "not read: s3.ipynb can't be read" in points[3]["output"]
    table = list(csv.DictReader(io.StringIO((out / "grades.csv").read_text())))
    assert [row["points"] for row in table] == ["1", "0", "0", "0"]
    assert len({row["seed"] for row in table}) == 1, (
        "all of a class get the same inputs"
    )
    assert assign.main(["report", str(out)]) == 0
    assert "s0,09_small,1,3" in capsys.readouterr().out


def test_a_kill_between_two_files_leaves_no_old_score(class_of):
    "What has been graded again counts only where both files are of one grading."
    there, out, go = class_of
    go()
    folder = out / "09_small" / "s1"
    old = (folder / "results.json").read_text()
    submitted(there, "def f(x): return x + 1").rename(there / "s1.ipynb")
    go()
    assert json.loads((folder / "results.json").read_text())["score"] == 1
    (folder / "results.json").write_text(old)
    assert assign.graded(folder) is None
    go()
    assert json.loads((folder / "results.json").read_text())["score"] == 1
    for text in ("3", "[]", "{}", '{"digest": 1}'):
        (folder / assign.GRADED).write_text(text)
        assert assign.graded(folder) is None and go() == 0


def test_two_of_one_name_keep_their_own_results(class_of, tmp_path):
    there, out, go = class_of
    found = []
    for who, code in (("ann", "def f(x): return x + 1"), ("bob", "def f(x): return 0")):
        (tmp_path / who).mkdir()
        path = submitted(tmp_path, code).rename(tmp_path / who / "student.ipynb")
        for _ in range(2):
            assert assign.grade_all(path, "09", out, 1, "smoke", True) == 0
        found += [path]
    rows = list(csv.DictReader(io.StringIO((out / "grades.csv").read_text())))
    assert [r["points"] for r in rows] == ["1", "0"]
    assert rows[0]["submission"] == "student" and "student-" in rows[1]["submission"]


def test_a_failure_is_not_the_end_of_a_class(class_of, capsys, monkeypatch):
    there, out, go = class_of
    whole = assign.grade

    def fails(assignment, path, *arguments, **named):
        if path.stem == "s1":
            raise grading.Unfit("the reference solution fails")
        return whole(assignment, path, *arguments, **named)

    monkeypatch.setattr(assign, "grade", fails)
    assert go() == 1
    said = capsys.readouterr()
    assert "not graded: s1: Unfit" in said.err and "3 graded in" in said.out
    rows = list(csv.DictReader(io.StringIO((out / "grades.csv").read_text())))
    assert [r["submission"] for r in rows] == ["s0", "s2", "s3"]
    monkeypatch.setattr(assign, "grade", whole)
    assert go() == 0 and "3 are graded already" in capsys.readouterr().out


def test_one_grader_at_a_time(tmp_path):
    with assign.alone_in(tmp_path), pytest.raises(ValueError, match="another grader"):
        with assign.alone_in(tmp_path):
            pass


def test_root_without_bubblewrap_is_refused(monkeypatch, plain):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    with pytest.raises(ValueError, match="--no-bubblewrap grades all the same"):
        assign.strong_enough(plain, asked=False)
    assign.strong_enough(plain, asked=True)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assign.strong_enough(plain, asked=False)


def test_a_grade_depends_on_scale_and_protections(tmp_path, plain):
    a = small(tmp_path, TWO, "def f(x): return x")
    path = submitted(tmp_path, "def f(x): return x")
    told = {
        grading.digest(a, path, full, p)
        for full in (True, False)
        for p in (plain, Protections(("--x",), True, False))
    }
    assert len(told) == 4
    odd = tmp_path / os.fsdecode(b"b\xe4d")
    odd.mkdir()
    path.rename(odd / os.fsdecode(b"n\xe4me.ipynb"))
    assert grading.digest(a, odd, True, plain) not in told


def test_grading_goes_on_where_it_stopped(class_of, capsys):
    there, out, go = class_of
    go()
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("results.json")}
    (out / "09_small" / "s1" / "results.json").unlink()
    (out / "09_small" / "s2" / "results.json").write_text('{"score": 3')  # half written
    submitted(there, "def f(x): return x + 2").rename(there / "s3.ipynb")  # again
    go()
    assert "1 are graded already" in capsys.readouterr().out
    now = {p: p.stat().st_mtime_ns for p in out.rglob("results.json")}
    same = {p.parent.name for p in stamps if stamps[p] == now[p]}
    assert same == {"s0"} and len(now) == 4


def test_a_killed_grader_leaves_whole_results(tmp_path):
    "Killed at random moments, and started again: every result is whole, none is lost."
    there, out = tmp_path / "in", tmp_path / "out"
    there.mkdir()
    text = (assign.ZOO / "half_done.ipynb").read_text()
    for i in range(8):
        (there / f"s{i}.ipynb").write_text(text)
    command = [sys.executable, str(ROOT / "tools" / "assign.py"), "grade", str(there)]
    command += ["--out", str(out), "--scale", "smoke", "--workers", "2"]
    before = set()
    for _ in range(2):
        grader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in grader.stdout:
            if line.startswith("s"):
                break
        grader.kill()
        grader.wait()
        grader.stdout.close()
        done = {p.parent.name for p in out.glob("*/*/results.json")}
        assert before <= done and len(done) < 8
        for p in out.glob("*/*/*.json"):
            json.loads(p.read_text())
        before = done
    done = subprocess.run(command, capture_output=True, text=True)
    assert f"{len(before)} are graded already" in done.stdout, done
    table = list(csv.DictReader(io.StringIO((out / "grades.csv").read_text())))
    assert [row["points"] for row in table] == ["10"] * 8


def test_command_line_errors(tmp_path, capsys):
    assert assign.main(["grade", str(tmp_path / "none")]) == 2
    assert assign.main(["check", "99"]) == 2
    assert "error: no assignment is called '99'" in capsys.readouterr().err
    (tmp_path / "x.ipynb").write_text(json.dumps(notebook("#| graded\nx = 1")))
    path = str(tmp_path / "x.ipynb")
    assert assign.main(["grade", path, "--out", str(tmp_path / "out")]) == 1
    assert "name it with --assignment" in capsys.readouterr().err


def test_check_finds_what_is_wrong(tmp_path, monkeypatch, capsys, strongest):
    "A student notebook that is old, a solution that loses points, a test for nothing."
    hidden = '@q.question("f", 1)\ndef f(ask, rng): ask("f")'
    a = small(tmp_path, hidden, "def f(): raise ValueError")
    nb = notebook("# T", "BADGES", "#| graded\ndef f(): return 1", "#| check f\nf()")
    (a.folder / "student.ipynb").write_text(json.dumps(nb))
    solution = notebook("# T", "BADGES", "#| graded\ndef f(): raise ValueError")
    (a.folder / "solution.ipynb").write_text(json.dumps(solution))
    with assign.References(strongest) as references:
        found = dict(assign._solved(grading.load(a.folder), references, False))
    assert "make assignments" in found["09_small: student.ipynb is fresh"]
    assert "ValueError" in found["09_small: solution 0 of 1"]
    assert "no visible check" in found["09_small: solution passes 0 visible checks"]
    assert "gets points for ['f']" in found["09_small: unsolved 1 of 1"]
    assert "these pass" in found["09_small: unsolved fails all 1 visible checks"]
