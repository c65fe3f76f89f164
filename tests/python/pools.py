"""Executors for tests: the same test body on the standard library's and on ours."""

import concurrent.futures as standard

import oxgang

MAKERS = {
    "standard-thread": lambda workers=2, **options: standard.ThreadPoolExecutor(workers, **options),
    "standard-process": lambda workers=2, **options: standard.ProcessPoolExecutor(
        workers, **options
    ),
    "oxgang-thread": lambda workers=2, **options: oxgang.Executor("thread", workers, **options),
    "oxgang-process": lambda workers=2, **options: oxgang.Executor("process", workers, **options),
}
