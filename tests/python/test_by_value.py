"""Programs of one file: their functions and classes work in process pools, guard or none."""

import subprocess
import sys
import textwrap

import pytest

IMPORT = "from oxgang.concurrent.futures import ProcessPoolExecutor\n"


def run(text, *, how, tmp_path):
    text = IMPORT + textwrap.dedent(text)
    if how == "script":
        path = tmp_path / "program.py"
        path.write_text(text)
        command, given = [sys.executable, str(path)], None
    elif how == "-c":
        command, given = [sys.executable, "-c", text], None
    else:
        command, given = [sys.executable, "-"], text
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture(params=["script", "-c", "stdin"])
def program(request, tmp_path):
    return lambda text: run(text, how=request.param, tmp_path=tmp_path)


def test_no_guard_is_needed(program):
    out = program(
        """
        print("once")
        def double(x):
            return 2 * x
        with ProcessPoolExecutor(2) as pool:
            print(*pool.map(double, range(4)))
        """
    )
    assert out == ["once", "0", "2", "4", "6"]


def test_lambdas_closures_and_recursion(program):
    out = program(
        """
        import math
        def adder(n):
            return lambda x: x + n
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        def area(r):
            return math.floor(math.pi * r)
        with ProcessPoolExecutor(1) as pool:
            print(pool.submit(lambda: 1).result(), pool.submit(adder(5), 1).result(),
                  pool.submit(fib, 10).result(), pool.submit(area, 2).result())
        """
    )
    assert out == ["1", "6", "55", "6"]


def test_classes_go_there_and_come_back_as_themselves(program):
    out = program(
        """
        from dataclasses import dataclass
        from enum import Enum
        class Colour(Enum):
            RED = 1
        @dataclass
        class Point:
            x: int
            colour: Colour
        def move(point):
            return Point(point.x + 1, point.colour)
        with ProcessPoolExecutor(1) as pool:
            back = pool.submit(move, Point(1, Colour.RED)).result()
            print(back == Point(2, Colour.RED), type(back) is Point, back.colour is Colour.RED)
        """
    )
    assert out == ["True"] * 3


def test_instances_of_the_programs_classes(program):
    out = program(
        """
        import dataclasses
        from functools import cached_property
        @dataclasses.dataclass
        class Base:
            number: int
            def total(self):
                return self.number + sum(self.more)
        @dataclasses.dataclass
        class Order(Base):
            more: list = dataclasses.field(default_factory=list)
            @cached_property
            def twice(self):
                return 2 * self.total()
            @classmethod
            def empty(cls):
                return cls(0)
            class Part:
                pass
        def twice(order):
            return order.twice
        def again(order):
            return Order(order.number + 1, [order])
        with ProcessPoolExecutor(2) as pool:
            print(*pool.map(twice, [Order(n, [1, 2]) for n in range(4)]))
            print(sum(pool.submit(twice, Order(n)).result() for n in range(100)))
            back = [pool.submit(again, Order(n)).result() for n in range(50)]
            print(back == [Order(n + 1, [Order(n)]) for n in range(50)])
            print(type(back[0].more[0]) is Order)
            both = lambda one: len(one[0].more) + one[1].number
            print(*pool.map(both, [(Order(1), Base(2))] * 3))
            part = pool.submit(lambda part: part, Order.Part()).result()
            print(type(part) is Order.Part)
        """
    )
    assert out == [*["6", "8", "10", "12", "9900", "True", "True", "2", "2", "2", "True"]]


def test_what_changes_in_a_class_is_seen_by_the_next_task(program):
    """Its methods, what they refer to, its attributes and what is in them; and its bases'."""
    out = program(
        """
        import dataclasses
        factor = 10
        def helper(x):
            return x
        def scaled(method):
            bonus = [0]
            def wrapper(self):
                return method(self) + len(bonus)
            wrapper.bonus = bonus
            return wrapper
        class Above:
            shift = 0
        @dataclasses.dataclass
        class Price(Above):
            amount: int
            def value(self):
                return helper(self.amount) * factor + self.shift
        class Kept:
            seen = []
            def __init__(self):
                self.n = 1
        class Wrapped:
            @scaled
            def value(self):
                return 1
        value = lambda one: one.value()
        with ProcessPoolExecutor(1) as pool:
            ask = lambda: print(pool.submit(value, Price(3)).result())
            ask(); ask()
            factor = 100
            ask()
            helper = lambda x: x + 1
            ask()
            Above.shift = 7
            ask()
            Price.value = lambda self: "another"
            ask()
            for n in range(3):
                Kept.seen.append(n)
                print(pool.submit(lambda one: len(one.seen) + one.n, Kept()).result())
            wrapped = Wrapped()
            print(pool.submit(value, wrapped).result())
            Wrapped.value.bonus.append(1)
            print(pool.submit(value, wrapped).result())
        """
    )
    assert out == [*["30", "30", "300", "400", "407", "another", "2", "3", "4", "2", "3"]]


def test_what_is_defined_later_is_there_at_the_next_try(program):
    """As when somebody adds what was missing in a notebook's next cell."""
    out = program(
        """
        def use(x):
            return helper(x)
        class User:
            def use(self):
                return helper(1)
        call = lambda user: user.use()
        with ProcessPoolExecutor(1) as pool:
            for what in ((use, 1), (call, User())):
                print(type(pool.submit(*what).exception()).__name__)
            def helper(x):
                return x + 1
            for what in ((use, 1), (call, User())):
                print(pool.submit(*what).result())
        """
    )
    assert out == ["NameError", "NameError", "2", "2"]


def test_a_class_that_cannot_go_by_value_goes_as_ever(program):
    out = program(
        """
        import threading
        lock = threading.Lock()
        class Locked:
            def __init__(self, n):
                self.n = n
            def use(self):
                with lock:
                    return self.n
        class Fine:
            def __init__(self, n):
                self.n = n
        with ProcessPoolExecutor(1) as pool:
            try:
                pool.submit(len, [Locked(1)]).result()
                print("arrived")
            except Exception as error:
                print(type(error).__name__)
            print(pool.submit(lambda one: one.n, Fine(4)).result())
        """
    )
    assert out[-1] == "4" and out[0] in ("TypeError", "PicklingError", "arrived", "PayloadError")


def test_exceptions_of_the_program_can_be_caught(program):
    out = program(
        """
        class Mine(Exception):
            pass
        def fail():
            raise Mine("x")
        with ProcessPoolExecutor(1) as pool:
            try:
                pool.submit(fail).result()
            except Mine as error:
                print("caught", error)
        """
    )
    assert out == ["caught", "x"]


def test_modules_of_oxgang_are_found_by_way_of_the_package(program):
    out = program(
        """
        import oxgang.shared
        import oxgang.threading
        def fill(count):
            made = oxgang.shared.zeros(count)
            with oxgang.threading.RLock():
                made += 1
            return made
        with ProcessPoolExecutor(1) as pool:
            print(pool.submit(fill, 3).result().sum())
        """
    )
    assert out == ["3.0"]


def test_what_the_initializer_sets_is_seen_by_tasks(program):
    out = program(
        """
        model = None
        def load(value):
            global model
            model = value
        def use(x):
            return model + x
        with ProcessPoolExecutor(1, initializer=load, initargs=(100,)) as pool:
            print(*pool.map(use, [1, 2]))
        """
    )
    assert out == ["101", "102"]


def test_a_worker_keeps_its_own_state_and_learns_of_new_values(program):
    out = program(
        """
        calls = 0
        offset = 1
        def count(x):
            global calls
            calls += 1
            return calls * 100 + x + offset
        with ProcessPoolExecutor(1) as pool:
            print(pool.submit(count, 0).result(), pool.submit(count, 0).result())
            offset = 7
            print(pool.submit(count, 0).result())
            def count(x):
                return "redefined"
            print(pool.submit(count, 0).result())
        """
    )
    assert out == ["101", "201", "307", "redefined"]


def test_a_nested_pool_knows_the_program_too(program):
    out = program(
        """
        def inner(x):
            return x + 1
        def outer(x):
            with ProcessPoolExecutor(1) as pool:
                return pool.submit(inner, x).result()
        with ProcessPoolExecutor(1) as pool:
            print(pool.submit(outer, 1).result())
        """
    )
    assert out == ["2"]


def test_a_global_that_cannot_be_pickled_makes_the_worker_run_the_script(tmp_path):
    out = run(
        """
        import threading
        lock = threading.Lock()
        def locked(x):
            with lock:
                return x + 1
        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as pool:
                print(*pool.map(locked, range(3)))
        """,
        how="script",
        tmp_path=tmp_path,
    )
    assert out == ["1", "2", "3"]


def test_without_a_guard_that_is_a_clear_error_and_no_bomb(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(
        IMPORT
        + textwrap.dedent(
            """
            import threading
            lock = threading.Lock()
            def locked(x):
                with lock:
                    return x + 1
            with ProcessPoolExecutor(1) as pool:
                pool.submit(locked, 1).result()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert 'if __name__ == "__main__"' in done.stderr


def test_the_standard_start_methods_have_it_too(tmp_path):
    out = run(
        """
        import multiprocessing
        def adder(n):
            return lambda x: x + n
        def double(x):
            return 2 * x
        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                context = multiprocessing.get_context(method)
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    print(pool.submit(adder(1), 1).result(), pool.submit(double, 2).result())
        """,
        how="script",
        tmp_path=tmp_path,
    )
    assert out == ["2", "4"] * 3
