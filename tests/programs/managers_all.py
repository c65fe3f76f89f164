"""A manager's dicts, lists, queues, locks, values; nested; from several processes."""

import multiprocessing


def fill(table, rows, lock, number):
    with lock:
        table[number] = number * number
        rows.append(number)


def answer(questions, answers):
    answers.put(questions.get() + "!")


def main():
    with multiprocessing.Manager() as manager:
        table, rows, lock = manager.dict(), manager.list(), manager.Lock()
        processes = [
            multiprocessing.Process(target=fill, args=(table, rows, lock, n)) for n in range(3)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        print(sorted(table.items()), sorted(rows), len(rows), 2 in table)
        nested = manager.list([manager.dict(a=1), manager.list([1])])
        nested[0]["b"] = 2
        nested[1].extend([2, 3])
        print(nested[0].copy(), nested[1][:], table.get(9, "none"), table.pop(0))
        space = manager.Namespace()
        space.word = "ox"
        value, array = manager.Value("i", 3), manager.Array("d", [1, 2])
        value.value += 1
        array[0] = 5
        print(space.word, value.value, array[0], list(array))
        questions, answers = manager.Queue(), manager.JoinableQueue()
        process = multiprocessing.Process(target=answer, args=(questions, answers))
        process.start()
        questions.put("well")
        print(answers.get())
        answers.task_done()
        answers.join()
        process.join()
        event, semaphore = manager.Event(), manager.BoundedSemaphore(1)
        event.set()
        print(event.is_set(), semaphore.acquire(), semaphore.acquire(False))
        condition, again, barrier = manager.Condition(), manager.RLock(), manager.Barrier(1)
        with condition:
            condition.notify_all()
        with again, again:
            print("twice", barrier.wait())
        print(type(table).__name__, str(rows[:]) == str(rows))
        with manager.Pool(2) as pool:
            print(pool.map(abs, [-1, 2]), pool.apply(max, (3, 4)))
        try:
            rows[99]
        except IndexError as error:
            print("IndexError:", error)


if __name__ == "__main__":
    main()
