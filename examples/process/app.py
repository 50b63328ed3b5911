"""Two small services of one file: one greets and counts its visits, one tells the time."""
import http.server
import pathlib
import sys
import time

VERSION = "v1"


def answer(service):
    if service == "api":
        return time.strftime("%H:%M:%S")
    visits = pathlib.Path("visits")
    visits.mkdir(exist_ok=True)
    (visits / f"{time.time_ns()}").touch()
    return f"{VERSION}, visit {len(list(visits.iterdir()))}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = ("fine" if self.path == "/healthz" else answer(self.server.service)).encode() + b"\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    service, host, port = sys.argv[1:]
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    server.service = service
    server.serve_forever()
