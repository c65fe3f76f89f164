"""Pages of a local server, fetched by threads; some are not there, one is slow."""

import concurrent.futures
import http.server
import threading
import time
import urllib.error
import urllib.request


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.endswith("slow"):
            time.sleep(0.05)
        if self.path.endswith("missing"):
            self.send_error(404)
            return
        body = (self.path * 10).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


def load(url, timeout):
    with urllib.request.urlopen(url, timeout=timeout) as page:
        return page.read()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}/"
lines = []
with concurrent.futures.ThreadPoolExecutor(max_workers=5) as executor:
    pages = ["a", "slow", "missing", "b", "c/d"]
    futures = {executor.submit(load, base + page, 60): page for page in pages}
    for future in concurrent.futures.as_completed(futures, timeout=60):
        page = futures[future]
        try:
            lines.append(f"{page} is {len(future.result())} bytes")
        except urllib.error.HTTPError as error:
            lines.append(f"{page} raised {error.code}")
server.shutdown()
server.server_close()
print("\n".join(sorted(lines)))
