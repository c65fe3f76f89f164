"""Queues between processes."""

import multiprocessing
import queue


def produce(out, begin):
    for number in range(begin, begin + 10):
        out.put(number)


def serve(requests, answers):
    for request in iter(requests.get, None):
        answers.put((request, request.upper()))


def consume(tasks, total):
    while True:
        number = tasks.get()
        with total.get_lock():
            total.value += number
        tasks.task_done()


def main():
    numbers = multiprocessing.Queue()
    producers = [multiprocessing.Process(target=produce, args=(numbers, n * 10)) for n in range(3)]
    for producer in producers:
        producer.start()
    print(sorted(numbers.get() for _ in range(30)) == list(range(30)))
    for producer in producers:
        producer.join()
    print(numbers.empty())
    try:
        numbers.get(timeout=0.01)
    except queue.Empty:
        print("Empty")
    requests, answers = multiprocessing.Queue(), multiprocessing.Queue()
    servers = [multiprocessing.Process(target=serve, args=(requests, answers)) for _ in range(2)]
    for server in servers:
        server.start()
    for word in ("ox", "yoke", "plough"):
        requests.put(word)
    print(sorted(answers.get() for _ in range(3)))
    for _ in servers:
        requests.put(None)
    for server in servers:
        server.join()
    small = multiprocessing.Queue(1)
    small.put("x")
    try:
        small.put("y", timeout=0.01)
    except queue.Full:
        print("Full")
    try:
        small.put_nowait("y")
    except queue.Full:
        print("Full at once")
    print(small.get())
    simple = multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=simple.put, args=({"a": [1, 2]},))
    process.start()
    print(simple.get(), simple.empty())
    process.join()
    tasks, total = multiprocessing.JoinableQueue(), multiprocessing.Value("l", 0)
    consumers = [
        multiprocessing.Process(target=consume, args=(tasks, total), daemon=True) for _ in range(2)
    ]
    for consumer in consumers:
        consumer.start()
    for number in range(20):
        tasks.put(number)
    tasks.join()
    print(total.value)
    for consumer in consumers:
        consumer.terminate()
        consumer.join()
    for one in (numbers, requests, answers, small):
        one.close()
        one.join_thread()
    try:
        numbers.put(1)
    except ValueError as error:
        print("ValueError", "closed" in str(error))


if __name__ == "__main__":
    main()
