"""The shop over HTTP. Knows no prices."""

import json
import signal
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from shop import prices

WELCOME = "Welcome to the shop."


class Unknown(Exception):
    """The customer asked for something that is not there."""


def answer(path, query):
    """The answer to a path and its query, as a value."""
    if path == "/healthz":
        return {"ok": True}
    if path == "/":
        return {"says": WELCOME, "items": sorted(prices.ITEMS)}
    item, region = query.get("item", "mug"), query.get("region", "de")
    if item not in prices.ITEMS or region not in prices.SHIPPING:
        raise Unknown(f"there is no {item} for {region}")
    count = int(query.get("count", "1"))
    if path == "/price":
        return {"item": item, "count": count, "price": prices.price(item, count)}
    if path == "/checkout":
        return prices.checkout(item, count, region)
    raise Unknown(f"there is no {path}")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet

    def reply(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        with self.server.working:
            try:
                status, value = 200, answer(url.path, query)
            except Unknown as unknown:
                status, value = 404, {"error": str(unknown)}
            except Exception:
                traceback.print_exc()
                status, value = 500, {"error": "something went wrong"}
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    do_GET = do_POST = reply

    def log_message(self, *_):
        """Says nothing: the router counts."""


class Working:
    """Counts requests under way, so that nobody is cut off at the end."""

    def __init__(self):
        self.count, self.changed = 0, threading.Condition()

    def __enter__(self):
        with self.changed:
            self.count += 1

    def __exit__(self, *_):
        with self.changed:
            self.count -= 1
            self.changed.notify_all()

    def wait(self, seconds):
        with self.changed:
            return self.changed.wait_for(lambda: self.count == 0, seconds)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port):
        super().__init__(("127.0.0.1", port), Handler)
        self.working = Working()


def main(port):
    server = Server(port)
    end = lambda *_: threading.Thread(target=server.shutdown).start()
    signal.signal(signal.SIGTERM, end)
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    server.working.wait(5)


if __name__ == "__main__":
    main(int(sys.argv[1]))
