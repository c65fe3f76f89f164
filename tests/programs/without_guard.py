"""A script with no guard around it, as many are that only know fork."""

import multiprocessing
import os

context = multiprocessing.get_context("fork")
owner = os.getpid()


def square(n):
    return n * n, os.getpid() != owner


with context.Pool(2) as pool:
    print(pool.map(square, range(4)))
answers = context.Queue()
process = context.Process(target=lambda: answers.put("from a lambda"))
process.start()
print(answers.get())
process.join()
