"""Records of worker processes reach the one handler of the program, through a queue."""

import logging
import logging.handlers
import multiprocessing


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


def begin(queue):
    root = logging.getLogger()
    root.handlers[:] = [logging.handlers.QueueHandler(queue)]
    root.setLevel(logging.DEBUG)


def work(number):
    logging.getLogger("work").info("number %d", number)
    if number == 2:
        try:
            raise ValueError("two")
        except ValueError:
            logging.getLogger("work.detail").exception("trouble")
    return number


def main():
    queue, kept = multiprocessing.Queue(), Kept()
    listener = logging.handlers.QueueListener(queue, kept)
    listener.start()
    with multiprocessing.Pool(2, begin, (queue,)) as pool:
        print(pool.map(work, range(5)))
    process = multiprocessing.Process(target=lambda_free, args=(queue,))
    process.start()
    process.join()
    listener.stop()
    for line in sorted(line.partition("\n")[0] for line in kept.lines):
        print(line)
    logger = multiprocessing.get_logger()
    print(logger.name, logger is multiprocessing.get_logger())
    logger.addHandler(kept)
    logger.setLevel(multiprocessing.SUBDEBUG if hasattr(multiprocessing, "SUBDEBUG") else 5)
    logger.warning("from %s", multiprocessing.current_process().name)
    print(kept.lines[-1])


def lambda_free(queue):
    begin(queue)
    logging.warning("from a process")


if __name__ == "__main__":
    main()
