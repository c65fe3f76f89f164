"""The same work by every start method."""

import multiprocessing


def square(n, results):
    results.put((n, n * n))


def by(method):
    context = multiprocessing.get_context(method)
    results = context.Queue()
    processes = [context.Process(target=square, args=(n, results)) for n in range(3)]
    for process in processes:
        process.start()
    print(method, sorted(results.get() for _ in processes), context.get_start_method())
    for process in processes:
        process.join()
    print([process.exitcode for process in processes])


if __name__ == "__main__":
    multiprocessing.freeze_support()
    for method in sorted(multiprocessing.get_all_start_methods()):
        if method in ("fork", "forkserver", "spawn"):
            by(method)
    try:
        multiprocessing.get_context("steam")
    except ValueError as error:
        print("ValueError:", error)
    multiprocessing.set_start_method("spawn", force=True)
    print(multiprocessing.get_start_method())
    process = multiprocessing.Process(target=print, args=("from spawn",))
    process.start()
    process.join()
    multiprocessing.set_start_method("fork", force=True)
    print(multiprocessing.get_start_method(), multiprocessing.get_context().get_start_method())
