"""A notebook that uses pools and threads, run by nbclient."""

import os
import tempfile

import nbformat
from nbclient import NotebookClient

os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
CELLS = (
    """
import concurrent.futures, multiprocessing, queue, threading
def square(n):
    return n * n
""",
    """
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    print(list(pool.map(square, range(5))))
""",
    """
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(square, range(5)))
""",
    """
with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
    print(pool.submit(square, 7).result())
""",
    """
numbers = queue.Queue()
thread = threading.Thread(target=lambda: numbers.put(square(9)))
thread.start(); thread.join()
numbers.get()
""",
)

with tempfile.TemporaryDirectory() as folder:
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        os.environ[name] = os.path.join(folder, name)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    for cell in notebook.cells:
        for output in cell.outputs:
            print(output.get("text") or output["data"]["text/plain"])
