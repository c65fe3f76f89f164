"""Servers with a thread, and with a process, for each connection."""

import socket
import socketserver
import threading


class Upper(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())


def talk(address, text, answers):
    with socket.create_connection(address) as connection:
        connection.sendall(text.encode() + b"\n")
        connection.shutdown(socket.SHUT_WR)
        answers.append(connection.makefile().read().strip())


for kind in (socketserver.ThreadingTCPServer, socketserver.ForkingTCPServer):
    with kind(("127.0.0.1", 0), Upper) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        answers = []
        clients = [
            threading.Thread(target=talk, args=(server.server_address, f"call {n}", answers))
            for n in range(4)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        server.shutdown()
        thread.join()
        print(kind.__name__, sorted(answers))
