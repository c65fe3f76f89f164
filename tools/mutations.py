"""The mutation check: bugs planted one by one, each of which some test must catch.

A copy of the crates is changed by one small patch at a time; the tests that stand for it must then
fail (or hang, which the watchdog notices). First every test must pass on the unchanged copy, and a
patch must compile, or its being caught would mean nothing.

    python -m tools.mutations [name …]

Part of ``dev.py deep``. The list with its results is in docs/design/005-proofs.md.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from tools.shell import DEV, ROOT, say

COPY = DEV / "mutants"
LIMIT_S = 200
SHM, ENGINE = "crates/oxgang-shm/src/", "crates/oxgang/src/"

LOOM = "loom"
TESTS = {
    "shm": ["cargo", "test", "-q", "-p", "oxgang-shm"],
    LOOM: ["cargo", "test", "-q", "-p", "oxgang-shm", "--test", "loom", "--release"],
    "engine": ["cargo", "test", "-q", "-p", "oxgang"],
}


class Mutation(NamedTuple):
    """`old` becomes `new` in one place of `file`; `test` must notice."""

    name: str
    what: str
    test: str
    file: str
    old: str
    new: str


MUTATIONS = (
    Mutation(
        "publish relaxed",
        "a frame is published by a store that orders nothing before it",
        LOOM,
        SHM + "ring.rs",
        "self.words.store(self.at.tail, self.tail, Release);",
        "self.words.store(self.at.tail, self.tail, Relaxed);",
    ),
    Mutation(
        "advance relaxed",
        "bytes go back to the producer by a store that orders no reads before it",
        LOOM,
        SHM + "ring.rs",
        "self.words.store(self.at.head, self.head, Release);",
        "self.words.store(self.at.head, self.head, Relaxed);",
    ),
    Mutation(
        "peek relaxed",
        "the consumer sees the tail move before it sees what was written",
        LOOM,
        SHM + "ring.rs",
        "let tail = self.words.load(self.at.tail, Acquire);",
        "let tail = self.words.load(self.at.tail, Relaxed);",
    ),
    Mutation(
        "claim without exchange",
        "a claim looks and then writes, in two steps",
        LOOM,
        SHM + "ring.rs",
        "self.words.compare_exchange(place, READY, incarnation).is_ok()",
        "let free = self.words.load(place, Acquire) == READY;\n"
        "        if free { self.words.store(place, incarnation, Release); }\n"
        "        free",
    ),
    Mutation(
        "owner rings without fence",
        "lost wake-up: the owner may look for a sleeper before its frame is seen",
        LOOM,
        SHM + "channel.rs",
        "// sync: fence here -> fence in prepare_sleep\n        self.words.fence();",
        "",
    ),
    Mutation(
        "worker sleeps without fence",
        "lost wake-up: the worker may look for a frame before its sleep is seen",
        LOOM,
        SHM + "channel.rs",
        "// sync: fence in ring_needed -> fence here\n        self.words.fence();",
        "",
    ),
    Mutation(
        "leader leaves without fence",
        "an answer falls between the leader that goes and the driver that is not told",
        LOOM,
        SHM + "watch.rs",
        "self.words.store(AT_LEADER, NOBODY, Relaxed);\n"
        "        // sync: fence in after_publish -> fence here\n"
        "        self.words.fence();",
        "self.words.store(AT_LEADER, NOBODY, Relaxed);",
    ),
    Mutation(
        "leader takes the driver's place",
        "a worker that finds a parked leader wakes nobody",
        LOOM,
        SHM + "watch.rs",
        "return Wake::Leader;",
        "return Wake::Nobody;",
    ),
    Mutation(
        "publish before writing",
        "the tail moves before the payload is there: a death between leaves a torn answer",
        "shm",
        SHM + "ring.rs",
        "let mut to = place + FRAME_HEADER;",
        "self.words.store(self.at.tail, position + size as u64, Release);\n"
        "        let mut to = place + FRAME_HEADER;",
    ),
    Mutation(
        "begun at the claim",
        "the frame counts as begun before it is claimed and read: a revoked one runs",
        "shm",
        SHM + "channel.rs",
        "let mine = self.requests.claim(&frame, self.incarnation);",
        "let mine = self.requests.claim(&frame, self.incarnation) || true;",
    ),
    Mutation(
        "answers before begun",
        "a worker moves past a frame only when it takes the next: what it ran seems not begun",
        "shm",
        SHM + "channel.rs",
        "            self.requests.advance(&frame);\n            if mine {",
        "            if !mine {\n                self.requests.advance(&frame);\n            }\n"
        "            if mine {",
    ),
    Mutation(
        "length not checked",
        "a frame's length is believed",
        "shm",
        SHM + "ring.rs",
        "if size > to_end || self.head + size as u64 > self.tail_seen {",
        "if self.head + size as u64 > self.tail_seen {",
    ),
    Mutation(
        "head not checked",
        "a consumer's position is believed",
        "shm",
        SHM + "ring.rs",
        "if head < self.head_seen || head > self.tail {",
        "if head < self.head_seen {",
    ),
    Mutation(
        "block beyond its file",
        "a block's description is not compared with the file",
        "shm",
        SHM + "arena.rs",
        "&& extent_end <= file_length;",
        ";",
    ),
    Mutation(
        "block given back twice",
        "the books forget to note that a block has come back",
        "shm",
        SHM + "arena.rs",
        "let Some(mut size) = self.lent.remove(&offset) else {",
        "let Some(mut size) = self.lent.get(&offset).copied() else {",
    ),
    Mutation(
        "recovery skipped",
        "the supervisor vacates a dead worker's seat and does not have its tasks sorted out",
        "engine",
        ENGINE + "supervisor.rs",
        "                    todo.push(Instruction::Recover(one));\n",
        "",
    ),
    Mutation(
        "a start too late",
        "a worker is started for a pool that has ended",
        "engine",
        ENGINE + "supervisor.rs",
        "self.seats.contains(&Seat::Starting(one))",
        "self.seats.iter().any(|seat| *seat != Seat::Starting(one)) || one > 0",
    ),
    Mutation(
        "hold for ever",
        "a pool that could not start a worker never tries again",
        "engine",
        ENGINE + "supervisor.rs",
        "        self.failed_starts = 0;\n        self.holding = false;",
        "        self.failed_starts = 0;",
    ),
    Mutation(
        "not begun is lost",
        "after a death, tasks that had not begun are dropped instead of going to others",
        "engine",
        ENGINE + "pool/core.rs",
        "            self.requeue(free.into_iter().rev().collect());",
        "            drop(free);",
    ),
    Mutation(
        "begun runs again",
        "after a death, the task that had begun goes to another worker too",
        "engine",
        ENGINE + "pool/core.rs",
        "let free = sent.split_off(begun);",
        "let free = sent.split_off(begun.saturating_sub(1));",
    ),
    Mutation(
        "last answers unread",
        "after a death, what the worker had published is not taken in first",
        "engine",
        ENGINE + "pool/core.rs",
        "        self.take_in_from(index);\n        let mut life = self.lives.swap_remove(index);\n"
        "        self.watch.forget_spinners();",
        "        let mut life = self.lives.swap_remove(index);\n"
        "        self.watch.forget_spinners();",
    ),
    Mutation(
        "nonsense is borne",
        "an answer to nothing does not cost the worker that made it up",
        "engine",
        ENGINE + "pool/core.rs",
        "                    life.give_up(); // an answer to nothing",
        "                    self.counters.answered += 1;",
    ),
    Mutation(
        "the driver is not woken",
        "lost wake-up: a worker's answer rings for nobody but the leader",
        "engine",
        ENGINE + "worker.rs",
        "Wake::Driver => self.driver.ring(),",
        "Wake::Driver => {}",
    ),
    Mutation(
        "queue commits early",
        "a message counts before it is written",
        "shm",
        SHM + "queue/mod.rs",
        "        ring.store(place, frame(kind, length), Relaxed);\n",
        "        self.commit(TAIL, &Record { count: tail.count.wrapping_add(1), ..next });\n"
        "        ring.store(place, frame(kind, length), Relaxed);\n",
    ),
    Mutation(
        "slot not named",
        "a message's long bytes are in a slot that passes for free",
        "shm",
        SHM + "queue/mod.rs",
        "                self.name(parcel, &tail);\n",
        "",
    ),
    Mutation(
        "slot taken unseen",
        "who comes to hold a slot does not look once more whether a message names it",
        LOOM,
        SHM + "queue/shelf.rs",
        "let received = self.look(HEAD)?.count;",
        "let received = u64::MAX;",
    ),
    Mutation(
        "look not held",
        "who looks at long bytes maps them by a descriptor that holds nothing",
        "engine",
        ENGINE + "shelf.rs",
        "true => holder.map_private(from, bytes),",
        "true => segment.map_private(from, bytes),",
    ),
    Mutation(
        "queue sleeps through",
        "who waits for a message does not look again before it sleeps",
        LOOM,
        SHM + "queue/mod.rs",
        "let rest = if ready() { Rest::Over } else { kernel.sleep(bell, low(seen)) };",
        "let rest = if false && ready() { Rest::Over } else { kernel.sleep(bell, low(seen)) };",
    ),
    Mutation(
        "token told late",
        "who watches a descriptor is told only after the message is there",
        "shm",
        SHM + "queue/token.rs",
        "if self.is_watched() && self.words.load(self.at + TOKEN, Acquire) != THERE {",
        "if false && self.words.load(self.at + TOKEN, Acquire) != THERE {",
    ),
    Mutation(
        "bell cleared late",
        "who slept on a descriptor says that no byte is there, and then takes one that has come",
        "shm",
        SHM + "queue/token.rs",
        "doorbell.clear();\n        self.words.store(self.at + RUNG, 0, Relaxed);",
        "self.words.store(self.at + RUNG, 0, Relaxed);\n        doorbell.clear();",
    ),
    Mutation(
        "calls of the dead are forgotten",
        "who makes room in the table of nodes frees a call that a waiter would have taken over",
        "shm",
        SHM + "sync/condition.rs",
        "if self.waiting().is_empty() {\n            called",
        "if true || self.waiting().is_empty() {\n            called",
    ),
    Mutation(
        "ring left in use",
        "a ring that receivers have yet to leave is taken for free",
        "shm",
        SHM + "queue/mod.rs",
        "entered > head.moves && entered <= tail.moves.wrapping_add(1)",
        "entered > head.moves.wrapping_add(1) && entered <= tail.moves.wrapping_add(1)",
    ),
    Mutation(
        "turns are not told apart",
        "an answer is taken for that of another question",
        "shm",
        SHM + "line.rs",
        "if frame.id != self.heard + 1 {",
        "if false {",
    ),
    Mutation(
        "a doze goes on",
        "lost wake-up: who waits on its word is not woken",
        "shm",
        SHM + "line.rs",
        "DOZES if self.words.compare_exchange(word, DOZES, AWAKE).is_ok() => Wake::Word,",
        "DOZES => Wake::Not,",
    ),
    Mutation(
        "the last word is not heard",
        "an answer that its sender did not live to wake for is lost",
        "engine",
        ENGINE + "line.rs",
        "            if ready(&mut self.end) {\n                return Ok(());\n            }\n"
        "            match slept {",
        "            match slept {",
    ),
)


class Copy:
    """A copy of the crates that can be changed and tested."""

    def __init__(self):
        self.env = os.environ | {
            "CARGO_TARGET_DIR": str(COPY / "target"),
            "CARGO_TERM_COLOR": "never",
        }
        self.tree = COPY / "tree"
        shutil.rmtree(self.tree, ignore_errors=True)
        ignored = shutil.ignore_patterns("target", "*.so")
        self.tree.mkdir(parents=True)
        for name in ("Cargo.toml", "Cargo.lock", "clippy.toml"):
            shutil.copy(ROOT / name, self.tree / name)
        # with new times: cargo would take an older file than its last, planted build for unchanged
        copy = shutil.copy
        shutil.copytree(ROOT / "crates", self.tree / "crates", ignore=ignored, copy_function=copy)

    def env_of(self, test):
        if test != LOOM:
            return self.env
        # a folder of its own: the cfg changes every crate below
        return self.env | {"RUSTFLAGS": "--cfg loom", "CARGO_TARGET_DIR": str(COPY / "loom")}

    def run(self, test, *words):
        """Exit code and output; None if it had to be ended."""
        command = [*TESTS[test], *words]
        process = subprocess.Popen(
            command,
            cwd=self.tree,
            env=self.env_of(test),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return None, output
        return process.returncode, output


def plant(copy, mutation):
    """Changes the copy; gives what undoes it."""
    path = copy.tree / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise LookupError(f"{mutation.file} has {text.count(mutation.old)} of {mutation.old!r}")
    path.write_text(text.replace(mutation.old, mutation.new))
    return lambda: path.write_text(text)


def check(copy, mutation):
    """How it was caught; an empty text if it was not."""
    undo = plant(copy, mutation)
    try:
        code, output = copy.run(mutation.test, "--no-run")
        if code != 0:
            raise LookupError(f"it does not compile:\n{output}")
        code, output = copy.run(mutation.test)
    finally:
        undo()
    if code is None:
        return "it hangs"
    if code == 0:
        return ""
    words = [line.split() for line in output.splitlines() if line.endswith(" FAILED")]
    failed = [line[1] if line[0] == "test" else line[0] for line in words]
    failed += [line.strip() for line in output.splitlines() if "panicked at" in line]
    return failed[0] if failed else f"exit code {code}"


def main(names=()):
    chosen = [one for one in MUTATIONS if not names or one.name in names]
    copy, escaped = Copy(), 0
    for test in dict.fromkeys(one.test for one in chosen):
        code, output = copy.run(test)
        if code != 0:
            say(f"{test}: fails without any planted bug:\n{output[-4000:]}")
            return 1
    for mutation in chosen:
        began = time.monotonic()
        try:
            how = check(copy, mutation)
        except LookupError as problem:
            how, problem_text = "", str(problem)
        else:
            problem_text = "NOT CAUGHT"
        escaped += not how
        seconds = time.monotonic() - began
        say(f"{mutation.name} ({mutation.test}): {how or problem_text}  [{seconds:.0f} s]")
    say(f"{len(chosen) - escaped} passed, {escaped} failed")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
