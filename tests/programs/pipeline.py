"""Three stages of processes, joined by queues, ended by a word."""

import multiprocessing

STOP = None


def stage(change, source, target, following):
    while (item := source.get()) is not STOP:
        target.put(change(item))
    source.put(STOP)  # for the others of this stage
    with following.get_lock():
        following.value -= 1
        if following.value == 0:
            target.put(STOP)


def strip(text):
    return text.strip()


def words(text):
    return text.split()


def main():
    queues = [multiprocessing.Queue() for _ in range(4)]
    processes = []
    for place, change in enumerate((strip, words, len)):
        left = multiprocessing.Value("i", 2)
        for _ in range(2):
            arguments = (change, queues[place], queues[place + 1], left)
            processes.append(multiprocessing.Process(target=stage, args=arguments))
    for process in processes:
        process.start()
    for line in (" one ox ", "two oxen ploughing", "", "a b c d e"):
        queues[0].put(line)
    queues[0].put(STOP)
    counts = list(iter(queues[-1].get, STOP))
    for process in processes:
        process.join()
    print(sorted(counts), [process.exitcode for process in processes])


if __name__ == "__main__":
    main()
