"""Nothing is paid for twice: not by a second call, a second process, or one that was killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from judging import compatible_judge, make_rollout, make_rollouts, openai_judge

from gymnast_core.errors import ConfigError, DataError
from gymnast_vlm_reward.completeness import Fault
from gymnast_vlm_reward.loopback import Behaviour, LoopbackServer
from gymnast_vlm_reward.store import Answer, Store, add_answers


def test_identical_rollouts_of_one_call_are_asked_once(tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(latency_s=0.05)) as server:
        judge = openai_judge(server, tmp_path)
        rewards = judge.score([make_rollout(0, True)] * 6)
        judge.close()
        assert [reward.value for reward in rewards] == [1.0] * 6
        assert len(server.log) == 1 and sum(reward.cost_usd != 0 for reward in rewards) == 1


def test_overlapping_calls_share_what_is_under_way(tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(4)
    with LoopbackServer(Behaviour(latency_s=0.3)) as server:
        judge = openai_judge(server, tmp_path)
        futures = [judge.submit(rollouts), judge.submit(rollouts[::-1])]
        values = [[reward.value for reward in future.result()] for future in futures]
        judge.close()
        assert values == [truth, truth[::-1]] and len(server.log) == 4


def test_a_cancelled_call_takes_no_other_one_along(tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(2)
    with LoopbackServer(Behaviour(latency_s=0.5)) as server:
        judge = openai_judge(server, tmp_path)
        first = judge.submit(rollouts)
        while not server.log:
            time.sleep(0.01)
        second = judge.submit(rollouts)
        first.cancel()
        assert [reward.value for reward in second.result(timeout=30)] == truth
        assert judge.spending().doubtful_usd > 0  # the first call's requests were sent
        judge.close()


def test_two_judges_on_one_file_ask_once(tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(6)
    with LoopbackServer(Behaviour(latency_s=0.2)) as server:
        judges = [openai_judge(server, tmp_path) for _ in range(3)]
        with ThreadPoolExecutor() as pool:
            results = list(pool.map(lambda judge: [reward.value for reward in judge.score(rollouts)], judges))
        assert results == [truth] * 3 and len(server.log) == 6
        for judge in judges:
            judge.close()


def test_more_votes_reuse_the_ones_at_hand(tmp_path: Path) -> None:
    with LoopbackServer() as server:
        for votes, expected in ((3, 3), (5, 5), (3, 5)):
            judge = compatible_judge(server, tmp_path, votes=votes)
            assert judge.score([make_rollout(0, True)])[0].value == 1.0
            judge.close()
            assert len(server.log) == expected


SCORING = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from judging import compatible_judge, make_rollouts
class Server:
    openai_url = {url!r}
judge = compatible_judge(Server, Path({folder!r}), concurrency=4)
print("ready", flush=True)
rewards = judge.score(make_rollouts({count})[0])
print([reward.value for reward in rewards])
judge.close()
"""


def _process(server: LoopbackServer, folder: Path, count: int) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parent)
    code = SCORING.format(tests=tests, url=server.openai_url, folder=str(folder), count=count)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_a_killed_process_asks_again_for_nothing_that_it_received(tmp_path: Path) -> None:
    """Killed in the middle, then resumed by two processes at once: every vote is received exactly once."""
    count, votes = 8, 5
    _, truth = make_rollouts(count)
    with LoopbackServer(Behaviour(latency_s=0.05)) as server:
        process = _process(server, tmp_path, count)
        while len(server.log) < count * votes // 2:
            time.sleep(0.01)
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        received = _answers(tmp_path)
        before = len(server.log)
        assert 0 < received.total() <= before < count * votes
        resumed = [_process(server, tmp_path, count) for _ in range(2)]
        outputs = [process.communicate(timeout=120)[0] for process in resumed]
        assert all(str(truth) in output for output in outputs)
        assert len(server.log) - before == count * votes - received.total()
        assert sorted(_answers(tmp_path).values()) == [votes] * count
        for question, number in Counter(served.question for served in server.log[before:]).items():
            earlier = sum(served.question == question for served in server.log[:before])
            assert number <= votes and earlier + number >= votes


def _answers(folder: Path) -> Counter[str]:
    connection = sqlite3.connect(folder / "vlm.sqlite")
    found = Counter(key for (key,) in connection.execute("SELECT key FROM answers"))
    connection.close()
    return found


def test_ctrl_c_stops_scoring_promptly(tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(latency_s=60)) as server:
        judge = compatible_judge(server, tmp_path, prices={"loopback": {"input": 1, "output": 1}})

        def interrupt() -> None:
            while len(server.log) < 4:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            judge.score(make_rollouts(8)[0])
        judge.close()
        assert time.monotonic() - began < 30  # of a minute that each answer takes
        sent = len(server.log)
        time.sleep(0.2)
        assert len(server.log) == sent and judge.spending().doubtful_usd > 0
        judge.close()


def test_claims_keep_others_off_until_released(tmp_path: Path) -> None:
    first, second = Store(str(tmp_path / "s.sqlite")), Store(str(tmp_path / "s.sqlite"))
    assert first.claim("q") and first.claim("q") and not second.claim("q")
    assert second.claim("another")
    second.release("q")  # what it does not hold
    assert not second.claim("q")
    first.release("q")
    assert second.claim("q") and not first.claim("q")
    second.close()
    assert first.claim("q") and first.claim("another")
    first.close()
    assert not list((tmp_path / "s.sqlite.claims").iterdir())


CLAIMING = """
import sys, time
from gymnast_vlm_reward.store import Store
print(Store(sys.argv[1]).claim("q"), flush=True)
time.sleep(600)
"""


def _claimer(folder: Path, *prefix: str) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-c", CLAIMING, str(folder / "s.sqlite")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_claim_lives_as_long_as_its_process_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path / "s.sqlite"))
    with _claimer(tmp_path) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "True\n"
        now = time.time()
        for step in (-3600.0, 3600.0, 10 * 365 * 86400.0):
            monkeypatch.setattr(time, "time", lambda step=step: now + step)
            assert not store.claim("q")
        owner.kill()
        owner.wait()
        assert store.claim("q")  # at once: the kernel has released it
    store.close()


def test_what_a_killed_process_claimed_is_tidied_up(tmp_path: Path) -> None:
    with _claimer(tmp_path) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "True\n"
        owner.kill()
    assert len(list((tmp_path / "s.sqlite.claims").iterdir())) == 1
    store = Store(str(tmp_path / "s.sqlite"))
    assert store.answers("q") == []
    assert not list((tmp_path / "s.sqlite.claims").iterdir())
    store.close()


def test_a_question_is_never_two_owners_at_once(tmp_path: Path) -> None:
    """Eight threads with a store each fight for one question: inside there is always one alone."""
    inside, most, taken = 0, 0, Counter[int]()

    def fight(number: int) -> None:
        nonlocal inside, most
        store = Store(str(tmp_path / "s.sqlite"))
        while taken.total() < 100:
            if store.claim("q"):
                inside += 1
                most = max(most, inside)
                taken[number] += 1
                time.sleep(0)
                inside -= 1
                store.release("q")

    threads = [threading.Thread(target=fight, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert most == 1 and taken.total() >= 100


OLDER = """
CREATE TABLE answers (
    key TEXT NOT NULL, vote INTEGER NOT NULL, text TEXT NOT NULL, fault TEXT, model TEXT NOT NULL,
    received REAL NOT NULL, PRIMARY KEY (key, vote)
) WITHOUT ROWID;
CREATE TABLE charges (
    id INTEGER PRIMARY KEY, account TEXT NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL,
    usd REAL, input_tokens INTEGER, output_tokens INTEGER, began REAL NOT NULL
);
CREATE TABLE accounts (name TEXT PRIMARY KEY, usd REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE buckets (name TEXT PRIMARY KEY, level REAL NOT NULL, updated REAL NOT NULL) WITHOUT ROWID;
INSERT INTO answers VALUES ('q', 0, 'yes', NULL, 'm', 0);
INSERT INTO answers VALUES ('q', 1, '', 'the model refused: "never"', 'm', 0);
INSERT INTO answers VALUES ('q', 2, 'ye', 'the answer was cut off at max_tokens', 'm', 0);
"""
"""Both earlier formats, but for the first one's claims."""
CLAIMS = "CREATE TABLE claims (key TEXT PRIMARY KEY, process INTEGER, owner TEXT, expires REAL);"


@pytest.mark.parametrize(("version", "tables"), [(1, OLDER + CLAIMS), (2, OLDER)])
def test_answers_of_older_formats_stay(tmp_path: Path, version: int, tables: str) -> None:
    """What was paid for is kept, and what was a refusal still is one; of the first format's claims nothing is left."""
    path = tmp_path / "s.sqlite"
    older = sqlite3.connect(path)
    older.executescript(f"{tables} PRAGMA user_version = {version};")
    older.close()
    kept = [
        Answer("yes"),
        Answer("", Fault('the model refused: "never"', refused=True)),
        Answer("ye", Fault("the answer was cut off at max_tokens")),
    ]
    for _ in range(2):  # opened by this version, and again
        store = Store(str(path))
        assert store.answers("q") == kept and store.claim("q")
        store.close()
    with store.transaction() as connection:
        add_answers(connection, "q", "m", kept[1:2])
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    assert store.answers("q") == [*kept, kept[1]] and "claims" not in names
    store.close()


def test_only_its_owner_reads_a_cache(tmp_path: Path) -> None:
    (tmp_path / "older.sqlite").touch(mode=0o644)
    for name in ("folder/new.sqlite", "older.sqlite"):
        store = Store(str(tmp_path / name))
        store.claim("q")
        with store.transaction() as connection:
            add_answers(connection, "q", "m", [Answer("yes")])
        files = [path for path in (tmp_path / name).parent.rglob("*") if path.is_file()]
        assert len(files) >= 3 and all(path.stat().st_mode & 0o077 == 0 for path in files), files
        store.close()


def test_a_file_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 1000)
    with pytest.raises(DataError, match="cache=PATH"):
        Store(str(tmp_path / "text.sqlite")).answers("q")
    connection = sqlite3.connect(tmp_path / "newer.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="format 99"):
        Store(str(tmp_path / "newer.sqlite")).answers("q")


def test_damaged_pages_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = Store(str(path))
    with store.transaction() as connection:
        for i in range(100):
            add_answers(connection, f"q{i}", "m", [Answer("yes")])
    store.close()
    data = bytearray(path.read_bytes())
    data[4096::64] = bytes(byte ^ 0xFF for byte in data[4096::64])
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="cache=PATH"):
        Store(str(path)).answers("q1")
    with pytest.raises(DataError, match="cache=PATH"), Store(str(path)).transaction() as connection:
        add_answers(connection, "q200", "m", [Answer("yes")])


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "s.sqlite"))
    with pytest.raises(RuntimeError), store.transaction() as connection:
        add_answers(connection, "q", "m", [Answer("yes")])
        raise RuntimeError
    assert store.answers("q") == []
    with store.transaction() as connection:
        add_answers(connection, "q", "m", [Answer("yes")])
    assert Store(str(tmp_path / "s.sqlite")).answers("q") == [Answer("yes")]


def test_many_open_a_new_file_at_one_moment(tmp_path: Path) -> None:
    for attempt in range(12):
        stores = [Store(str(tmp_path / f"{attempt}.sqlite")) for _ in range(8)]
        together = threading.Barrier(len(stores))

        def ask(store: Store, together: threading.Barrier = together) -> list[Answer]:
            together.wait()
            return store.answers("q")

        with ThreadPoolExecutor(len(stores)) as pool:
            assert list(pool.map(ask, stores)) == [[]] * len(stores)
        for store in stores:
            store.close()
